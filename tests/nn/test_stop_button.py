"""The stop button of a notebook, pressed in a real kernel."""

import queue
import time

import pytest
from jupyter_client.manager import start_new_kernel

PREPARE = """
import time
from qviz.nn.train import fit
from tests.nn.training import Blobs, assert_same_history, assert_same_state, config, quantized

def slowly(step, history):
    print("step", flush=True)
    time.sleep(0.2)

whole, stopped, resumed = quantized(), quantized(), quantized(seed=7)
expected = fit(whole, Blobs(), config(), progress=False)
"""
TRAIN = "history = fit(stopped, Blobs(), config(), folder={folder!r}, progress=False, on_step=slowly)"
LOOK = "print(history.interrupted, 3 <= len(history.curve.steps) < 18)"
RESUME = """
history = fit(resumed, Blobs(), config(), folder={folder!r}, progress=False, resume=True)
assert_same_state(whole, resumed)
assert_same_history(expected, history)
print(history.interrupted, len(history.curve.steps))
"""


@pytest.fixture
def kernel(checkout):
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(checkout))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def cell(client, code, *, printed=None):
    """Run a cell and return what it printed; call ``printed`` with that after each piece."""
    asked = client.execute(code)
    text, deadline = "", time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") != asked:
            continue
        kind, content = message["msg_type"], message["content"]
        assert kind != "error", "\n".join(content["traceback"])
        if kind == "stream":
            text += content["text"]
            if printed is not None:
                printed(text)
        if kind == "status" and content["execution_state"] == "idle":
            return text
    raise TimeoutError(f"the cell did not end; it printed {text!r}")


@pytest.mark.slow
def test_the_stop_button_saves_and_the_same_cell_goes_on(kernel, tmp_path):
    manager, client = kernel
    pressed = []

    def press(text):
        if not pressed and text.count("step") >= 3:
            pressed.append(True)
            manager.interrupt_kernel()

    cell(client, PREPARE)
    cell(client, TRAIN.format(folder=str(tmp_path)), printed=press)
    assert pressed
    assert cell(client, LOOK) == "True True\n"
    assert cell(client, RESUME.format(folder=str(tmp_path))).endswith("False 18\n")
