"""The memory of a kernel in which one cell, which makes and shows an explorer, is run again and again."""

import gc
import itertools
import sys
import time

import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel

from qviz.explore.gallery import MODELS

RUNS = 10
MOST_MB = 5.0
LOOK = """
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6
"""


@pytest.fixture(scope="module")
def kernel(checkout):
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(checkout))
    run(client, "setup", f"import gc, resource\nfrom qviz import widgets\n{LOOK}")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    gc.collect()  # jupyter_client leaves its event loop to the collector, which warns of it whenever it comes


def run(client, cell, code):
    """Run a cell as a notebook does, with the cell's id, and return what is resident afterwards, in MB."""
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    content["user_expressions"] = {"resident": "resident()"}
    message = client.session.msg("execute_request", content, metadata={"cellId": cell})
    client.shell_channel.send(message)
    asked, deadline = message["header"]["msg_id"], time.monotonic() + 120
    while time.monotonic() < deadline:
        told = client.get_iopub_msg(timeout=120)
        assert told["msg_type"] != "error", "\n".join(told["content"]["traceback"])
        if told["parent_header"].get("msg_id") == asked and told["content"].get("execution_state") == "idle":
            found = client.get_shell_msg(timeout=120)["content"]["user_expressions"]["resident"]
            return float(found["data"]["text/plain"])
    raise TimeoutError(f"the cell did not end: {code}")


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", MODELS)
def test_a_cell_that_is_run_again_keeps_little(kernel, name):
    """The slope over the later runs, as the median of that between any two of them: one jump is no leak."""
    held = [run(kernel, name, f"widgets.{name}()") for _ in range(1 + RUNS)][2:]
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in itertools.combinations(enumerate(held), 2)]
    assert np.median(slopes) <= MOST_MB, f"resident after each run, MB: {np.round(held, 1)}"
