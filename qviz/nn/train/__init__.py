"""Train: a configuration, a loop that can be stopped and gone on with, and the record of what happened."""

from __future__ import annotations

from qviz.nn.train.checkpoint import load_checkpoint as load_checkpoint
from qviz.nn.train.config import TrainConfig as TrainConfig
from qviz.nn.train.errors import CheckpointError as CheckpointError
from qviz.nn.train.errors import DivergenceError as DivergenceError
from qviz.nn.train.evaluate import evaluate as evaluate
from qviz.nn.train.history import History as History
from qviz.nn.train.layer_recorder import LayerRecorder as LayerRecorder
from qviz.nn.train.loop import fit as fit
from qviz.nn.train.recording import LayerRecording as LayerRecording
from qviz.nn.train.series import Series as Series
