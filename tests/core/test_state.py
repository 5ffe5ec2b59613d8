"""PyTorch's files: refused in a sentence that names what is in them, and names freed of a prefix."""

import argparse
import re

import pytest
import torch
from torch import nn

from qviz.core._state import read, unprefixed


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"state_dict": {}, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"run": eval}, "eval"),
    ],
)
def test_what_a_refused_file_holds_is_named_in_one_sentence(tmp_path, content, name):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ValueError, match=re.escape(f"m.pt holds {name}, which is no tensor")) as refused:
        read(tmp_path / "m.pt")
    assert not re.search(r"\n|\x1b|weights_only", str(refused.value))


def test_only_a_prefix_of_all_names_that_the_network_has_not_is_taken_off():
    state = nn.DataParallel(nn.Sequential(nn.Linear(2, 2))).state_dict()
    found, words = unprefixed(state, {"0.weight", "0.bias"})
    assert (list(found), words) == (["0.weight", "0.bias"], "names without the prefix 'module.'")
    assert set(found._metadata) == {"", "0"}
    assert "module" in state._metadata
    for own in (state, {"conv1.weight"}):
        assert unprefixed(state, own) == (state, "")
    for others in ({"head.bias": 1}, {"scale": 1}):
        assert unprefixed(dict(state) | others, {"0.weight"}) == (dict(state) | others, "")
