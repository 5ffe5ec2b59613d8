"""Plain: frozen dataclasses as what strict JSON can hold, back again, and the JSON Schema of both."""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

UNFINITE = ("nan", "inf", "-inf")
"""How a number is written that JSON has no notation for."""

_SIMPLE = {str: ("string", "a text"), bool: ("boolean", "true or false"), int: ("integer", "a whole number")}


def to_plain(value: Any) -> Any:
    """Return dataclasses as dicts, tuples as lists, and NaN and infinities as the texts "nan", "inf", "-inf".

    Example:
        >>> from qviz.inspection.views import Sensitivity
        >>> to_plain(Sensitivity(0.5, float("inf")))
        {'on': 0.5, 'off': 'inf'}
    """
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: to_plain(one) for key, one in value.items()}
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(kind: Any, value: Any, where: str = "") -> Any:
    """Return what :func:`to_plain` made plain.

    Args:
        kind: Its type: a dataclass, a tuple or a mapping, a number, a text, or one of these or None.
        value: What is read.
        where: Its place, for the message.

    Raises:
        ValueError: It is of another type, or a field is missing or unknown; names the first such place.
    """
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if is_dataclass(kind):
        return _dataclass(kind, _need(dict, value, where, f"the fields of {kind.__name__}"), where)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        found = _need(list, value, where, "a list")
        return tuple(from_plain(inner, one, f"{where}[{i}]") for i, one in enumerate(found))
    if get_origin(kind) is Mapping:
        inner = get_args(kind)[1]
        found = _need(dict, value, where, "named values")
        return {key: from_plain(inner, one, f"{where}.{key}") for key, one in found.items()}
    if kind is float:
        if value in UNFINITE or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return float(value)
        raise ValueError(f"{where} must be a number, or one of {', '.join(UNFINITE)}, got {value!r:.60}")
    return _need(kind, value, where, _SIMPLE[kind][1])


def _need(kind: type, value: Any, where: str, what: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where or 'the top'} must be {what}, got {value!r:.60}")
    return value


def _dataclass(kind: type, value: Mapping[str, Any], where: str) -> Any:
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    if strange := sorted(set(value) - set(known)):
        raise ValueError(f"{where or 'the top'} has {strange[0]!r}, which {kind.__name__} has not")
    if missing := [name for name, field in known.items() if name not in value and _required(field)]:
        raise ValueError(f"{where or 'the top'} has no {missing[0]!r}")
    places = {name: f"{where}.{name}" if where else name for name in value}
    return kind(**{name: from_plain(hints[name], one, places[name]) for name, one in value.items()})


def _required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def schema_of(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a type; the dataclasses that it is made of are put into ``defs``.

    Their descriptions are the first line and the "Attributes" section of the docstring.
    """
    if get_origin(kind) in (Union, types.UnionType):
        return {"anyOf": [schema_of(one, defs) for one in get_args(kind)]}
    if is_dataclass(kind):
        if kind.__name__ not in defs:
            defs[kind.__name__] = {}
            defs[kind.__name__] |= _object(kind, defs)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": schema_of(get_args(kind)[0], defs)}
    if get_origin(kind) is Mapping:
        return {"type": "object", "additionalProperties": schema_of(get_args(kind)[1], defs)}
    if kind is float:
        return {"anyOf": [{"type": "number"}, {"enum": list(UNFINITE)}]}
    return {"type": "null" if kind is type(None) else _SIMPLE[kind][0]}


def _object(kind: type, defs: dict[str, Any]) -> dict[str, Any]:
    hints, texts = get_type_hints(kind), attributes(kind)
    return {
        "description": inspect.getdoc(kind).partition("\n")[0],
        "type": "object",
        "properties": {
            field.name: {"description": texts[field.name], **schema_of(hints[field.name], defs)}
            for field in fields(kind)
        },
        "required": [field.name for field in fields(kind) if _required(field)],
        "additionalProperties": False,
    }


def attributes(kind: type) -> dict[str, str]:
    """Return the sentences of a class's "Attributes" section by name; several names may share one.

    Example:
        >>> from qviz.inspection.views import Values
        >>> attributes(Values)["high"]
        'The smallest and the largest.'
    """
    section = inspect.getdoc(kind).partition("\nAttributes:\n")[2].partition("\n\n")[0]
    found = {}
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
