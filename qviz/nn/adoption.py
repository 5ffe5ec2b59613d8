"""Adoption: how a float layer becomes a quantized one, and how it becomes a float layer again."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self

import torch
from torch import nn

from qviz.core.quantizer import Quantizer
from qviz.nn.watch import Watch

STANDARDIZED = ("daq_weight", "apot_weight")
"""Recipes of weights that are standardized unless the state says otherwise."""


class Adopted(nn.Module):
    """The part of a quantized layer that makes it of a float layer; the layer may be made anew too.

    Attributes:
        float_type: The class of the float layer.
    """

    float_type: ClassVar[type[nn.Module]]

    @classmethod
    def from_float(cls, layer: nn.Module, **how: Any) -> Self:
        """Return a quantized twin of ``layer`` that shares its parameters; ``layer`` stays as it is.

        Args:
            layer: exactly an nn.Conv2d or nn.Linear, as the class has it.
            **how: the four keyword arguments of the class.

        Raises:
            TypeError: another type, a subclass included.
        """
        cls._refuse(layer)
        twin = cls.float_type.__new__(cls.float_type)
        for key, value in vars(layer).items():
            vars(twin)[key] = copy.copy(value) if isinstance(value, (dict, set)) else value
        return cls.adopt(twin, **how)

    @classmethod
    def adopt(
        cls,
        layer: nn.Module,
        *,
        weight_quantizer: Quantizer | None = None,
        input_quantizer: Quantizer | None = None,
        standardize: bool = False,
        output_scale: bool = False,
    ) -> Self:
        """Turn ``layer`` itself into a quantized one and return it.

        Whatever else holds the layer (several parents, a plain list, its hooks) goes on holding it.
        :meth:`release` undoes it. Arguments and errors as for :meth:`from_float`.
        """
        cls._refuse(layer)
        layer.__class__ = cls
        try:
            layer._equip(weight_quantizer, input_quantizer, standardize, output_scale)
        except (TypeError, ValueError):
            layer.__class__ = cls.float_type
            raise
        return layer

    @classmethod
    def _refuse(cls, layer: nn.Module) -> None:
        if type(layer) is not cls.float_type:
            raise TypeError(f"layer must be exactly a {cls.float_type.__name__}, got {type(layer).__name__}")
        if "forward" in vars(layer):  # it would be called instead of the class's
            raise TypeError("layer has a forward of its own, set on the instance; it would not be quantized")

    def release(self) -> nn.Module:
        """Turn this layer back into the float layer and return it."""
        for name in ("weight_quantizer", "input_quantizer"):
            del self._modules[name]
        del self._parameters["output_scale"], self._buffers["standardized"]
        del self.standardize, self._ready, self._watch
        for name in ("drop", "generator"):
            vars(self).pop(name, None)
        hooks = self._load_state_dict_post_hooks
        for key in [key for key, hook in hooks.items() if hook is _after_loading]:
            del hooks[key]
        self.__class__ = self.float_type
        return self

    def _equip(
        self,
        weight_quantizer: Quantizer | None,
        input_quantizer: Quantizer | None,
        standardize: bool,
        output_scale: bool,
    ) -> None:
        quantizers = {"weight_quantizer": weight_quantizer, "input_quantizer": input_quantizer}
        for name, q in quantizers.items():
            if q is not None and not isinstance(q, Quantizer):
                raise TypeError(f"{name} must be a Quantizer or None, got {type(q).__name__}")
        if standardize and self.weight.numel() < 2:
            raise ValueError("a weight of one element has no standard deviation to be standardized by")
        for name, q in quantizers.items():
            self.register_module(name, None if q is None else q.to(self.weight.device).train(self.training))
        self.standardize = bool(standardize)
        recipe = None if weight_quantizer is None else weight_quantizer.recipe
        expected = recipe is not None and recipe.name in STANDARDIZED
        said = None if self.standardize == expected else torch.tensor(self.standardize)
        self.register_buffer("standardized", None if said is None else said.to(self.weight.device))
        scale = torch.full((), torch.nan, device=self.weight.device) if output_scale else None
        self.register_parameter("output_scale", None if scale is None else nn.Parameter(scale))
        self._ready, self._watch = False, Watch()
        self.register_load_state_dict_post_hook(_after_loading)


def _after_loading(layer: Adopted, keys: Any) -> None:
    """Look again whether the layer is calibrated: a state dict may have brought all that was missing.

    One of weights alone changes what the quantizers were calibrated on, and is for the watch to see.
    """
    layer._ready = layer.calibrated
    if layer._ready and not any("weight_quantizer." in key for key in keys.missing_keys):
        layer._watch.start(layer)
