"""The papers' quantizers: one function a recipe, each a few lines of parts; see :mod:`qviz.methods`."""

from __future__ import annotations

from qviz.core.recipe import Recipe as Recipe
from qviz.core.recipe import recipe as recipe
from qviz.methods.adaround import adaround_weight
from qviz.methods.adq import adq_weight
from qviz.methods.apot import apot_activation, apot_weight
from qviz.methods.aquant import aquant_activation
from qviz.methods.asq import asq_activation, post_weight, pot_weight
from qviz.methods.daq import daq_activation, daq_weight, soft_argmax
from qviz.methods.lsq import lsq
from qviz.methods.lsq_plus import lsq_plus
from qviz.methods.method import Method as Method
from qviz.methods.method import Pair as Pair
from qviz.methods.n2uq import n2uq_activation
from qviz.methods.pact import dorefa_weight, pact_activation
from qviz.methods.pairs import pair as pair
from qviz.methods.pairs import register as register
from qviz.methods.ste import ste

__all__ = [
    "adaround_weight",
    "adq_weight",
    "apot_activation",
    "apot_weight",
    "aquant_activation",
    "asq_activation",
    "daq_activation",
    "daq_weight",
    "dorefa_weight",
    "lsq",
    "lsq_plus",
    "n2uq_activation",
    "pact_activation",
    "post_weight",
    "pot_weight",
    "soft_argmax",
    "ste",
]


def __dir__() -> list[str]:
    """Return the recipes."""
    return __all__
