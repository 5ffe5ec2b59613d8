"""Post-training quantization: no labels, a thousand images, minutes."""

from __future__ import annotations

from qviz.nn.ptq.adaround import adaround as adaround
from qviz.nn.ptq.bias import bias_correction as bias_correction
from qviz.nn.ptq.blocks import Block as Block
from qviz.nn.ptq.blocks import find_blocks as find_blocks
from qviz.nn.ptq.borders import add_borders as add_borders
from qviz.nn.ptq.borders import fold_borders as fold_borders
from qviz.nn.ptq.fold import fold_batchnorm as fold_batchnorm
from qviz.nn.ptq.front import ptq as ptq
from qviz.nn.ptq.gate import Gate as Gate
from qviz.nn.ptq.gptq import gptq as gptq
from qviz.nn.ptq.nearest import nearest as nearest
from qviz.nn.ptq.options import Options as Options
from qviz.nn.ptq.reconstruct import reconstruct as reconstruct
from qviz.nn.ptq.report import PTQReport as PTQReport
from qviz.nn.ptq.room import Room as Room
from qviz.nn.ptq.room import room as room
