"""Networks: convert one, calibrate it, train it, and look at what became of it.

>>> import torch
>>> import qviz
>>> from qviz.nn import calibrate, convert
>>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> x = torch.rand(16, 4)
>>> report = convert(net, pair=qviz.recipes.pair("lsq", w_bits=4), batch=x, first_last="quantized")
>>> calibrate(net, x)
>>> report.quantized_weights, report.average_bits
(48, 4.0)

A loop of your own needs :func:`split` for its optimizers and :func:`adapt` after each step; :func:`fit` does
both. Data sets, models and whole experiments stand in ``qviz.nn.data``, ``qviz.nn.models``, ``qviz.nn.runs``.
"""

from __future__ import annotations

from qviz.nn.batchnorm import reestimate_batchnorm as reestimate_batchnorm
from qviz.nn.calibration import calibrate as calibrate
from qviz.nn.capture import tap as tap
from qviz.nn.convert import convert as convert
from qviz.nn.convert import deconvert as deconvert
from qviz.nn.download import cache_dir as cache_dir
from qviz.nn.layers import QuantConv2d as QuantConv2d
from qviz.nn.layers import QuantLinear as QuantLinear
from qviz.nn.layers import adapt as adapt
from qviz.nn.modules import quantizers as quantizers
from qviz.nn.modules import split as split
from qviz.nn.quant_layer import QuantLayer as QuantLayer
from qviz.nn.report import Report as Report
from qviz.nn.report import report as report
from qviz.nn.train import CheckpointError as CheckpointError
from qviz.nn.train import DivergenceError as DivergenceError
from qviz.nn.train import History as History
from qviz.nn.train import LayerRecorder as LayerRecorder
from qviz.nn.train import LayerRecording as LayerRecording
from qviz.nn.train import TrainConfig as TrainConfig
from qviz.nn.train import evaluate as evaluate
from qviz.nn.train import fit as fit
from qviz.nn.train import load_checkpoint as load_checkpoint
from qviz.nn.weights import load_weights as load_weights
