"""The shipped notebooks as files: pairs that agree, outputs that every viewer shows, nothing that hangs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ABSOLUTE = re.compile(r"(?<![\w.:/<])(/(?:home|Users|root|tmp|mnt|opt|private|work)/|[A-Z]:\\)")
# Solutions live in labs/source and reach the reader only through labs/release, which has its own rules.
STEMS = sorted(
    {
        file.relative_to(FOLDER).with_suffix("").as_posix()
        for file in FOLDER.rglob("*")
        if file.suffix in (".py", ".ipynb") and not {".ipynb_checkpoints", "labs"} & set(file.parts)
    }
)


def problems(script: Path, notebook: Path) -> list[str]:
    """What is wrong with a pair; empty if nothing is."""
    missing = [f"{file.name} is missing" for file in (script, notebook) if not file.is_file()]
    if missing:
        return missing
    pair = nbformat.read(notebook, as_version=4)
    return [
        *pair_problems(jupytext.read(script, fmt="py:percent"), pair),
        *source_problems(pair),
        *output_problems(pair),
        *[f"an absolute path: {found[0]}" for found in ABSOLUTE.finditer(notebook.read_text("utf-8"))],
    ]


def pair_problems(script, notebook) -> list[str]:
    """By content: no jupytext switch notices a stale pair, and times say nothing in a fresh clone."""
    ours, theirs = ([(c.cell_type, c.source.strip()) for c in n.cells] for n in (script, notebook))
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), "the end")
        return [f"the pair differs at cell {at}: run `make notebooks`"]
    return []


def source_problems(notebook) -> list[str]:
    """interact() and Output() hang or blind headless runners; IPython magic is not Python."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    if name in ("interact", "interactive", "interact_manual", "interactive_output", "Output"):
                        found.append(f"{name}() in a notebook: show an explorer")
    return found


def output_problems(notebook) -> list[str]:
    """A lesson that was run, all of it, in order, without complaint, and shows itself without a kernel."""
    found = ["metadata.widgets: GitHub refuses it"] if "widgets" in notebook.metadata else []
    if "formats" in notebook.metadata.get("jupytext", {}):
        found.append("paired by jupytext: Lab will not open a notebook that is newer than its script")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)) or not outputs:
        found.append("not executed from the first cell to the last: run `make notebooks`")
    for output in outputs:
        data = output.get("data", {})
        if output.output_type == "error" or output.get("name") == "stderr":
            found.append(f"an error or a warning in the outputs: {output.get('text') or output.get('ename')}")
        if WIDGET_VIEW in data:
            found.append("a live widget view in the outputs: an error message in every viewer")
        if "image/png" in data and not output.metadata.get("image/png", {}).get("alt"):
            found.append("a picture without alt text")
    return found


def test_there_are_notebooks():
    assert "00-start-here" in STEMS


@pytest.mark.parametrize("stem", STEMS)
def test_notebook(stem):
    assert problems(FOLDER / f"{stem}.py", FOLDER / f"{stem}.ipynb") == []


# --- the checks themselves

SCRIPT = "# %% [markdown]\n# # A title\n\n# %%\nprint(1)\n"


@pytest.fixture
def pair(tmp_path):
    """A good pair: (script, notebook, a function that rewrites the notebook after a change)."""
    script, notebook = tmp_path / "a.py", tmp_path / "a.ipynb"
    script.write_text(SCRIPT)
    content = jupytext.read(script, fmt="py:percent")
    content.cells[1].execution_count = 1
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    nbformat.write(content, notebook)

    def change(how):
        how(content)
        nbformat.write(content, notebook)
        return problems(script, notebook)

    return script, notebook, change


def test_a_good_pair_is_let_be(pair):
    assert pair[2](lambda content: None) == []


def add_output(**data_and_metadata):
    output = nbformat.v4.new_output("display_data", **data_and_metadata)
    return lambda content: content.cells[1].outputs.append(output)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda nb: nb.cells[1].update(source="print(2)"), "differs at cell 1"),
        (lambda nb: nb.cells[0].update(source="# Another"), "differs at cell 0"),
        (lambda nb: nb.cells.pop(0), "differs at cell 0"),
        (lambda nb: nb.cells.append(nbformat.v4.new_markdown_cell("more")), "differs at cell the end"),
        (lambda nb: nb.metadata.update(widgets={}), "metadata.widgets"),
        (lambda nb: nb.metadata.jupytext.update(formats="ipynb,py:percent"), "paired by jupytext"),
        (lambda nb: nb.cells[1].update(outputs=[]), "not executed"),
        (lambda nb: nb.cells[1].update(execution_count=7), "not executed"),
        (lambda nb: nb.cells[1].outputs[0].update(name="stderr"), "an error or a warning"),
        (lambda nb: nb.cells[1].outputs[0].update(text="in /ho" + "me/me/qviz"), "an absolute path"),
        (add_output(data={WIDGET_VIEW: {}, "text/plain": "x"}), "live widget view"),
        (add_output(data={"image/png": "aGk="}), "without alt text"),
        (lambda nb: nb.cells[1].update(source="widgets.interact(f, x=1)"), "interact()"),
        (lambda nb: nb.cells[1].update(source="out = widgets.Output()"), "Output()"),
    ],
)
def test_a_bad_pair_is_seen(pair, damage, says):
    assert any(says in problem for problem in pair[2](damage))


def test_a_picture_with_alt_text_is_let_be(pair):
    picture = add_output(data={"image/png": "aGk="}, metadata={"image/png": {"alt": "a line"}})
    assert pair[2](picture) == []


@pytest.mark.parametrize("which", [0, 1])
def test_half_a_pair_is_seen(pair, which):
    pair[which].unlink()
    assert problems(*pair[:2]) == [f"{pair[which].name} is missing"]


def test_every_lesson_is_in_the_table_with_its_minutes():
    """And every link of the table and of the glossary leads somewhere."""
    table = (FOLDER / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| \[\d\d [^]]*\]\(([^)]+)\.ipynb\) \|[^|]*\| (\d+) \|", table, re.M))
    lessons = [stem for stem in STEMS if stem[:2].isdigit()]
    assert list(rows) == lessons
    for stem, minutes in rows.items():
        assert f"About {minutes} minutes" in (FOLDER / f"{stem}.py").read_text("utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", table):
        assert (FOLDER / link).exists(), link


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem[:2].isdigit()])
def test_a_prediction_stands_alone_in_a_cell_that_is_folded_in(stem):
    """The answer is in its source."""
    cells = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4).cells
    asks = [cell for cell in cells if re.search(r"^Predict\(", cell.source, re.M)]
    assert asks
    for cell in asks:
        assert len(ast.parse(cell.source).body) == 1, cell.source
        assert cell.metadata.get("jupyter", {}).get("source_hidden"), cell.source


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem[:2].isdigit()])
def test_links_of_a_lesson_lead_to_files_and_to_entries_of_the_glossary(stem):
    text = (FOLDER / f"{stem}.py").read_text("utf-8")
    files = re.findall(r"\]\(([^)#:]+\.(?:ipynb|md))[#)]", text)
    assert files
    assert [file for file in files if not (FOLDER / file).exists()] == []
    glossary = (FOLDER / "glossary.md").read_text("utf-8")
    names = re.findall(r"^### (.+)$", glossary, re.M)
    entries = {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in names}  # as GitHub does
    inside = re.findall(r"\]\(#([^)]+)\)", glossary)
    linked = re.findall(r"\]\(glossary\.md#([^)]+)\)", text)
    assert linked, "a lesson explains its terms by the glossary"
    assert sorted({*linked, *inside} - entries) == []
