"""A student's code runs, its answers are numbers, and nothing hostile in it gets anywhere."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qviz.labs.model import Alien
from qviz.labs.sandbox import Limits, isolation
from tests.labs import attacks

LIMITS = Limits(call_seconds=15, wall_seconds=60, memory_mb=300, disk_mb=8, output_mb=4)
SHORT = replace(LIMITS, call_seconds=0.8)
PACKAGE = Path(isolation.__file__).parents[3]
X = np.linspace(-1, 1, 9, dtype=np.float32)
QUANTIZE = (
    "import torch\ndef quantize(x, s, b):\n    return s * torch.clamp(torch.round(x / s), 0, 2**b - 1)\n"
)
needs_landlock = pytest.mark.skipif(not isolation.landlock(), reason="this kernel has no Landlock")


@pytest.fixture
def worker(zygote):
    with zygote.worker(LIMITS) as worker:
        yield worker


@pytest.fixture
def hurried(zygote):
    with zygote.worker(SHORT) as worker:
        yield worker


@pytest.fixture
def hidden(tmp_path):
    path = tmp_path / "hidden.py"
    path.write_text("'hidden 4711'")
    return path


def still_works(zygote):
    """The next submission is served, and nothing is left of the one before."""
    with zygote.worker(LIMITS) as worker:
        worker.cell("def one(): return 1")
        assert worker.call("one", ()).value == 1
    assert {path.name for path in zygote._home.iterdir() if path.is_dir()} == set()


def run(worker, source, hidden):
    text = source.format(
        hidden=str(hidden), temporary=tempfile.gettempdir(), grader=os.getpid(), package=str(PACKAGE)
    )
    return worker.cell(text)


@pytest.mark.slow
def test_values_and_gradients_come_as_numbers(worker):
    assert worker.cell(QUANTIZE).error is None
    got = worker.call("quantize", (X, 0.25, 2), arrays="torch", wrt=(0, 1), cotangent=np.ones_like(X))
    np.testing.assert_array_equal(got.value, [0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 0.75])
    np.testing.assert_array_equal(got.gradients[0], np.zeros(9))
    assert got.gradients[1].shape == ()
    s = torch.tensor(0.25, requires_grad=True)
    (s * torch.clamp(torch.round(torch.from_numpy(X) / s), 0, 3)).sum().backward()
    assert got.gradients[1] == s.grad


def test_an_own_backward_is_taken(worker):
    worker.cell("def f(x, s): return x * s\ndef f_backward(x, s, g): return g * s, (g * x).sum()")
    got = worker.call("f", (X, 2.0), wrt=(0, 1), cotangent=np.ones_like(X))
    np.testing.assert_array_equal(got.gradients[0], np.full(9, 2, np.float32))
    assert got.gradients[1] == X.sum()


def test_a_function_may_write_into_its_argument(worker):
    worker.cell("def f(x):\n    x *= 3\n    return x")
    got = worker.call("f", (X,), arrays="torch", wrt=(0,), cotangent=np.ones_like(X))
    np.testing.assert_array_equal(got.value, 3 * X)
    np.testing.assert_array_equal(got.gradients[0], np.full(9, 3, np.float32))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        0.1,
        float("inf"),
        "text",
        (1, "a"),
        [1.5, None],
        {"a": (1, [2]), "b": X},
        {3: X[:0]},
        X > 0,
    ],
)
def test_plain_data_cross_both_ways(worker, value):
    worker.cell("def same(x): return x")
    got = worker.call("same", (value,)).value
    assert type(got) is type(value)
    np.testing.assert_equal(got, value)


def test_precision_shape_and_order_cross_unchanged(worker):
    worker.cell("def same(x): return x")
    for array in (
        np.float64(1.5) + X.astype(np.float64),
        X.reshape(3, 3).T,
        X[::2],
        np.array(2, np.int16),
        X[:0],
    ):
        got = worker.call("same", (array,)).value
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("print", "object"),
        ("lambda: 0", "function"),
        ("{1, 2}", "set"),
        ("type('Secret4', (), {})()", "object"),
        ("torch.zeros(2, dtype=torch.bfloat16)", "Tensor"),
        ("[[[[[[[[1]]]]]]]]", None),
    ],
)
def test_what_is_no_plain_data_is_an_alien(worker, expression, name):
    worker.cell(f"import torch\ndef f(): return {expression}")
    got = worker.call("f", ()).value
    assert got == Alien(name) if name else "Alien(type_name='list')" in repr(got)


def test_lines_for_a_shell_and_magics_do_nothing_but_say_so(worker):
    source = (
        "!pip install x\n%matplotlib inline\nfiles = !ls\n%time a = 3\nhelp?\n"
        "text = '''\n!kept\n'''\nb = (7\n% 4)\nget_ipython().system('ls'); display(a)\n"
        "def f(): return a, files, text, b"
    )
    done = worker.cell(source)
    assert done.error is None
    assert "[!pip install x: lines for a shell" in done.output
    assert worker.call("f", ()).value == (3, [], "\n!kept\n", 3)
    assert worker.cell("%%bash\nrm -rf x").error is None
    assert worker.cell("%%time\nc = 1\ndef g(): return c").error is None
    assert worker.has("g")


def test_top_level_await_works(worker):
    assert worker.cell("import asyncio\nawait asyncio.sleep(0.01)\ndef f(): return 1").error is None
    assert worker.has("f")


def test_output_of_a_process_that_ends_is_kept(worker):
    done = worker.cell("print('seen'); import os; os._exit(0)")
    assert (done.output, worker.ended) == ("seen\n", "process ended")


def test_a_failure_tells_type_and_line_and_no_message(worker):
    worker.cell("def f(x):\n    y = x\n    raise ValueError(f'hidden {x}')\ndef g(x): return f(x)")
    got = worker.call("g", (4,))
    assert (got.value, got.failure, got.line) == (None, "ValueError", 3)
    assert worker.call("h", ()).failure == "no such function"
    assert worker.cell("x = 1\nx = = 2").line == 2


@pytest.mark.parametrize("line", ["10**6", "-1", "0"])
def test_a_line_that_is_not_in_the_cells_is_dropped(worker, line):
    """A student could tell a hidden input by it."""
    worker.cell(f"def f(): exec(compile('\\n' * ({line}) + 'raise ValueError', '<cell 1>', 'exec'))")
    assert worker.call("f", ()).line in (None, 1)


def test_a_plot_is_made_without_a_screen(worker):
    pytest.importorskip("matplotlib")
    done = worker.cell("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('a.png')\nplt.show()")
    assert done.error is None


@pytest.mark.parametrize("source", attacks.LOOPS.values(), ids=attacks.LOOPS)
def test_what_does_not_end_is_ended(zygote, hurried, source):
    start = time.monotonic()
    hurried.cell(source)
    assert hurried.ended == "time limit"
    assert time.monotonic() - start < 5
    assert hurried.call("f", ()).failure == "time limit"
    hurried.close()
    still_works(zygote)


@pytest.mark.parametrize("source", attacks.DEATHS.values(), ids=attacks.DEATHS)
def test_a_process_that_ends_is_named(zygote, worker, source):
    worker.cell(source)
    assert worker.ended == "process ended"
    worker.close()
    still_works(zygote)


@pytest.mark.parametrize(("source", "errors"), attacks.ERRORS.values(), ids=attacks.ERRORS)
def test_what_is_refused_fails_in_the_students_own_line(zygote, worker, hidden, source, errors):
    done = run(worker, source, hidden)
    assert done.error in errors
    assert worker.cell("def f(): return 1").error is None or worker.ended
    worker.close()
    still_works(zygote)


@needs_landlock
@pytest.mark.parametrize("source", attacks.GAINS.values(), ids=attacks.GAINS)
def test_nothing_is_gained(worker, hidden, source):
    done = run(worker, source, hidden)
    assert "GAINED" not in done.output
    assert hidden.read_text() == "'hidden 4711'"
    assert sorted(path.name for path in hidden.parent.iterdir()) == ["hidden.py"]


@pytest.mark.parametrize("source", attacks.LIES.values(), ids=attacks.LIES)
def test_what_is_no_answer_is_malformed(worker, hidden, source):
    run(worker, f"def f():\n    {source.replace(chr(10), chr(10) + '    ')}", hidden)
    assert worker.call("f", ()).value is None
    assert worker.ended == "malformed answer"


def test_bytes_one_at_a_time_run_into_the_time_limit(hurried):
    hurried.cell("import os, time\ndef f():\n    while True:\n        os.write(3, b'Q'[:1]); time.sleep(0.1)")
    hurried.call("f", ())
    assert hurried.ended in ("time limit", "malformed answer")


@pytest.mark.parametrize("way", ["print('x' * 1000)", "os.write(1, b'x' * 1000)", "os.write(2, b'x' * 1000)"])
def test_a_flood_of_output_is_stopped(worker, way):
    done = worker.cell(f"import os\nwhile True: {way}")
    assert worker.ended == "output over 4 MB"
    assert len(done.output) <= 20_000


def test_an_answer_that_is_too_large_is_a_failure_of_that_call(worker):
    worker.cell(
        "import numpy as np\ndef f(): return np.zeros(20_000_000)\ndef g(): return [0.123456789] * 190_000"
    )
    assert worker.call("f", ()).failure == "answer too large"
    assert worker.call("g", ()).failure == "answer too large"
    assert worker.ended is None


def test_objects_that_equal_everything_cross_as_aliens(worker):
    worker.cell(
        "import torch, builtins\nclass All:\n    def __eq__(self, other): return True\n"
        "torch.equal = torch.allclose = builtins.all = lambda *a, **k: True\ndef f(x): return All()"
    )
    assert worker.call("f", (X,)).value == Alien("object")


def test_cpu_time_is_limited_in_all(zygote):
    with zygote.worker(Limits(cpu_seconds=1, call_seconds=10)) as worker:
        worker.cell("while True: pass")
        assert worker.ended == "time limit"


def test_a_deep_folder_is_removed_without_namespaces_too(zygote):
    for layers in (("landlock", "seccomp"), ()):
        with zygote.worker(LIMITS, layers=layers) as worker:
            worker.cell("import os\nfor i in range(1000):\n    os.mkdir('d'); os.chdir('d')")
            folder = worker._folder
        assert not folder.exists()


def test_a_shared_disk_is_not_filled(zygote):
    source = "while True:\n    open(str(len(__import__('os').listdir('.'))), 'wb').write(bytes(7 << 20))"
    with zygote.worker(LIMITS, layers=("landlock", "seccomp")) as worker:
        worker.cell(source)
        assert worker.ended == "files over 8 MB"


@pytest.mark.slow
def test_it_starts_again_when_it_was_killed(zygote):
    os.kill(zygote.pid, signal.SIGKILL)
    still_works(zygote)


def test_it_holds_nothing_of_the_grader(zygote, monkeypatch):
    status = Path(f"/proc/{zygote.pid}/environ").read_bytes()
    assert b"QVIZ" not in status
    assert b"PYTHON" not in status
    assert "qviz/core" not in Path(f"/proc/{zygote.pid}/maps").read_text()


def test_wrong_limits_and_layers_are_refused(zygote):
    with pytest.raises(ValueError, match="memory_mb must be positive, got 0"):
        Limits(memory_mb=0)
    with pytest.raises(ValueError, match="got 'walls'"):
        zygote.worker(layers=("walls",))
