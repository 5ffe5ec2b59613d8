"""The instructor's guide says what is so: its example is a lab, short, and its table has the labs' points."""

import re

from qviz.labs.judge import judge, run
from qviz.labs.master import read
from qviz.labs.source import load
from qviz.labs.variants import variant
from tests.labs import suite
from tests.tools.pair_labs import paired

GUIDE = (suite.SOURCE.parent / "INSTRUCTOR.md").read_text("utf-8")


def test_the_example_is_a_whole_lab_of_at_most_forty_lines(tmp_path):
    master, cases = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    lines = [line for line in (master + cases).splitlines() if line]
    assert len(lines) <= 40
    assert f"in {len(lines)} lines" in GUIDE
    (tmp_path / "lab7-step.py").write_text(master, "utf-8")
    (tmp_path / "lab7_step_cases.py").write_text(cases, "utf-8")
    lab = load("lab7-step", tmp_path)
    space = {}
    for part in read(paired(tmp_path / "lab7-step.py"), lab):
        if not part.markdown:
            exec(part.solved, space)
    asked = lab.question("widest_step")
    hidden = asked.cases(variant(lab, suite.SECRET))
    assert judge(asked, hidden, lambda case: run(space["widest_step"], case, "numpy")).points == 3
    (mistake,) = asked.mistakes.values()
    assert judge(asked, hidden, lambda case: run(mistake.answer, case, "numpy")).text == mistake.hint


def test_the_table_has_what_the_labs_say():
    for name in ("lab4-codebooks", "lab5-borders", "lab6-capstone"):
        lab = suite.lab_of(name)
        assert re.search(rf"\| `{name}` \|.*\| {lab.points:g} \| {lab.minutes} \|", GUIDE), name
