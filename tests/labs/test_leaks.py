"""What a release may not tell is found however it is packed, and a clean release raises no alarm."""

import base64
import codecs
import copy
import gzip
import io
import json
import marshal
import zipfile
import zlib
from pathlib import Path

import pytest

from qviz.labs import build, handout, leaks, master, source
from qviz.labs.variants import variant
from tests.slow import slow

FIXTURES = Path(__file__).parent / "fixtures"
LAB = source.load("lab0-steps", FIXTURES)
PARTS = master.read(source.notebook("lab0-steps", FIXTURES), LAB)
SECRET = b"sixteen bytes or more"
ANNA = variant(LAB, SECRET, "Anna")
RELEASE = build.release(LAB, PARTS, ANNA)
SECRETS = leaks.secrets(LAB, PARTS, source.cases_text("lab0-steps", FIXTURES))
LINE = "    return np.clip(np.rint(x / s), 0, 2**bits - 1) * s\n"
CODE = f"def quantize(x, s, bits):\n{LINE}"
WORDS = "It is zero wherever it has one at all."
SENTENCE, OTHER, PLAIN = "sentence that is the instructor's", "under other names", "line of the solution"


def in_text(text):
    return lambda notebook, folder: notebook["cells"][2]["source"].append(text)


def in_output(output):
    return lambda notebook, folder: notebook["cells"][3].update(outputs=[output])


def in_metadata(notebook, folder):
    notebook["metadata"]["note"] = LINE


def in_escaped_json(notebook, folder):
    notebook["cells"][2]["metadata"]["tests"] = json.dumps({"hidden": json.dumps([CODE])})


def in_pieces(notebook, folder):
    packed = base64.b64encode(zlib.compress(CODE.encode())).decode()
    notebook["cells"][4]["source"].append(f"\nkey = '{packed[:20]}' + '{packed[20:41]}' '{packed[41:]}'")


def attached(notebook, folder):
    notebook["cells"][6]["attachments"] = {"answer.png": {"image/png": "iVBORw0KGgo="}}


def as_file(name, content):
    def plant(notebook, folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return plant


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, CODE)
    return file.getvalue()


COMPILED = marshal.dumps(compile(CODE, "x", "exec"))
TRACEBACK = {
    "output_type": "error",
    "ename": "AssertionError",
    "evalue": "",
    "traceback": [
        "\x1b[0;31m---->\x1b[0m 2 \x1b[0;32mreturn\x1b[0m np.clip(np.rint(x / \x1b[34ms\x1b[0m), ",
        "0, 2**bits - 1) * s",
    ],
}
PLANTS = {
    "other spacing and a comment": (
        in_text("return np.clip( np.rint(x/s),0, 2 ** bits-1 )*s  # done"),
        PLAIN,
    ),
    "renamed variables": (
        lambda n, f: n["cells"][4].update(source="def q(a, b, c):\n" + LINE.translate({120: 97, 115: 98})),
        OTHER,
    ),
    "commented out": (lambda n, f: n["cells"][4].update(source="# " + LINE), PLAIN),
    "a traceback": (in_output(TRACEBACK), PLAIN),
    "printed": (in_output({"output_type": "stream", "name": "stdout", "text": [LINE]}), PLAIN),
    "notebook metadata": (in_metadata, PLAIN),
    "escaped JSON": (in_escaped_json, PLAIN),
    "base64": (in_text(base64.b64encode(CODE.encode()).decode()), "base64: a line of the solution"),
    "base64 in lines": (
        in_text(base64.encodebytes(CODE.encode()).decode()),
        "base64: a line of the solution",
    ),
    "compressed base64 in pieces": (in_pieces, "string, base64, zlib: a line"),
    "hexadecimal": (in_text(CODE.encode().hex()), "hexadecimal: a line"),
    "gzip": (as_file("data.bin", gzip.compress(CODE.encode())), "gzip: a line"),
    "a wheel": (as_file("x.whl", zipped("x/core.py")), "x/core.py: a line"),
    "marshal": (in_text(base64.b64encode(COMPILED).decode()), "compiled code"),
    "a compiled file": (as_file("x.pyc", COMPILED), "x.pyc does not belong"),
    "a compiled file of another name": (
        as_file("data.bin", b"\xa7\r\r\n" + bytes(12) + COMPILED),
        "compiled code",
    ),
    "an attachment": (attached, "it has attachments"),
    "a gradebook": (as_file("gradebook.db", b"SQLite format 3\0"), "gradebook.db does not belong"),
    "a checkpoint": (as_file(".ipynb_checkpoints/x.txt", b"x"), ".ipynb_checkpoints does not belong"),
    "git history": (as_file(".git/objects/ab", b"x"), ".git does not belong"),
    "a key": (as_file("keys.csv", b"x"), "keys.csv does not belong"),
    "rot13": (in_text(codecs.encode(LINE, "rot13")), "rot13"),
    "backwards": (in_text(LINE[::-1]), "backwards"),
    "a model answer in words": (in_text(f" {WORDS.upper()} "), SENTENCE),
    "UTF-16": (as_file("notes.txt", CODE.encode("utf-16")), PLAIN),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_plant_is_found(tmp_path, name):
    plant, says = PLANTS[name]
    notebook = copy.deepcopy(RELEASE)
    plant(notebook, tmp_path)
    (tmp_path / "lab0-steps.ipynb").write_bytes(build.as_bytes(notebook))
    told = leaks.scan_folder(tmp_path, SECRETS)
    if says is not None:
        assert any(says in sentence for sentence in told), told


def test_the_hidden_seed_is_found():
    notebook = copy.deepcopy(RELEASE)
    in_text(f"seed {ANNA.hidden_seed}.")(notebook, None)
    assert leaks.scan(build.as_bytes(notebook), "x.ipynb", SECRETS, ANNA) == [
        "x.ipynb, cells 3, source: the hidden seed"
    ]


@pytest.mark.parametrize("name", ["lab0-steps", *slow(*source.names())])
def test_a_clean_release_raises_no_alarm(name):
    folder = FIXTURES if name == "lab0-steps" else None
    lab = source.load(name, folder)
    parts = master.read(source.notebook(name, folder), lab)
    secret = leaks.secrets(lab, parts, source.cases_text(name, folder))
    assert len(secret.lines) > 20
    for student in ("common", "0123", "Anna"):
        own = variant(lab, SECRET, student)
        assert leaks.scan(build.as_bytes(build.release(lab, parts, own)), name, secret, own) == []


def test_a_release_that_would_tell_is_not_written(tmp_path):
    masters, out = tmp_path / "source", tmp_path / "out"
    masters.mkdir()
    told = source.notebook("lab0-steps", FIXTURES)
    told["cells"][5]["source"] += ["\n", WORDS]
    (masters / "lab0-steps.ipynb").write_text(json.dumps(told))
    (masters / "lab0_steps_cases.py").write_bytes((FIXTURES / "lab0_steps_cases.py").read_bytes())
    with pytest.raises(ValueError, match=r"would tell: lab0-steps-anna\.ipynb, cells 6, source: a sentence"):
        handout.write(LAB, ANNA, out, masters=masters)
    with pytest.raises(ValueError, match="would tell"):
        handout.write_roster(LAB, ["Anna"], SECRET, out, masters=masters)
    assert not list(out.rglob("*.ipynb"))
