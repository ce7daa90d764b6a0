"""Converts values to the types of environment parameters, or rejects them.

The command line parses numbers and booleans without knowing the parameter, and leaves the rest as
text (`jaxrl.value_text.plain_value`). Here they are converted to the type of the parameter, taken
from its annotation or else from its default. Arrays and other Python objects are passed unchanged.
"""

import enum
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl.errors import InvalidValue

Kinds = frozenset[str]
"""Types that a parameter takes, keys of `EXAMPLES`; if empty or only "none", it takes anything."""

EXAMPLES = {
    "bool": ("true or false", "true"),
    "int": ("a whole number", "5"),
    "number": ("a number", "0.5"),
    "list": ("a list of numbers", "[0,1]"),
    "text": ("a text", "'\"text\"'"),
    "none": ("none", "none"),
}
"""Each kind in words, and an example in the syntax of the command line."""
KINDS_OF_TYPES: dict[Any, str] = {
    bool: "bool",
    int: "int",
    float: "number",
    str: "text",
    None: "none",
    type(None): "none",
    tuple: "list",
    list: "list",
    Sequence: "list",
    "bool": "bool",
    "int": "int",
    "float": "number",
    "str": "text",
    "None": "none",
}
NUMBERS = Kinds({"number"})


def fitted(function: Callable[..., Any], params: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Converts `params` to the types that a function (or class) takes.

    Args:
      function: its annotations and defaults give the types; parameters it does not list pass.
      params: values by name.
      owner: owner of the parameters, for messages.

    Raises:
      ValueError: a value of the wrong type; the message has an example.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that only a type checker can resolve
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built-ins have no signature
        return dict(params)
    found = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }

    def one(name: str, value: Any) -> Any:
        said = f"{owner} cannot be made with {name}={value!r}"
        if (parameter := found.get(name)) is None:
            return value
        if choices := _choices(parameter.annotation):
            none = {"none": None} if parameter.default is None else {}
            return _chosen(value, choices | none, said)
        return fit(value, _kinds(parameter.annotation, parameter.default), name, said)

    return {name: one(name, value) for name, value in params.items()}


def fit(value: Any, kinds: Kinds, name: str, said: str) -> Any:
    """Converts one value for a parameter of these kinds.

    Raises:
      ValueError: `said`, followed by the values that the parameter `name` takes.
    """
    if kinds <= {"none"}:  # no type is known
        return None if kinds and str(value).lower() == "none" else value
    if not isinstance(value, bool | int | float | str | list | tuple | None):
        return value
    if "none" in kinds and (value is None or str(value).lower() in ("none", "null")):
        return None
    if "list" in kinds and isinstance(value, str) and value[:1] in ("[", "("):
        value = _list(value)
    match value:
        case bool() if "bool" in kinds:
            return value
        case bool():
            pass
        case 0 | 1 if "bool" in kinds and not kinds & {"int", "number"}:
            return bool(value)
        case int() | float() if "number" in kinds:
            return value
        case int() if "int" in kinds:
            return value
        case float() if "int" in kinds and value.is_integer():
            return int(value)
        case list() | tuple() if "list" in kinds and _is_array(value):
            return _tuples(value)
        case str() if "text" in kinds:
            return value
    words = [EXAMPLES[kind][0] for kind in EXAMPLES if kind in kinds]
    example = next(EXAMPLES[kind][1] for kind in EXAMPLES if kind in kinds)
    raise InvalidValue(f"{said}: give {' or '.join(words)}, for example {name}={example}")


def _choices(annotation: Any) -> dict[str, Any]:
    """Values of a `Literal` or an `Enum` (optionally with None) by name; empty for other types."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return {str(value): value for value in arguments}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {member.name: member for member in annotation}
    if origin in (typing.Union, types.UnionType):
        parts = [{"none": None} if part is type(None) else _choices(part) for part in arguments]
        return {text: x for part in parts for text, x in part.items()} if all(parts) else {}
    return {}


def _chosen(value: Any, choices: Mapping[str, Any], said: str) -> Any:
    """The choice that equals a value or its text.

    Raises:
      ValueError: `said`, followed by the choices.
    """
    for text, choice in choices.items():
        if (type(value) is type(choice) and value == choice) or str(value).lower() == text.lower():
            return choice
    raise InvalidValue(f"{said}: give {' or '.join(choices)}")


def check_size(number: int | float, said: str) -> None:
    """Raises ValueError, beginning with `said`, unless the number fits jax's default dtypes."""
    largest = 2**31 - 1 if isinstance(number, int) else float(np.finfo(np.float32).max)
    if not abs(number) <= largest:
        dtype = "int32" if isinstance(number, int) else "float32"
        raise InvalidValue(f"{said}: it must be finite and fit into {dtype}")


def _kinds(annotation: Any, default: Any) -> Kinds:
    """Kinds that a parameter takes, from its annotation or else its default."""
    none = Kinds({"none"} if default is None else ())
    annotated = annotation is not inspect.Parameter.empty
    if annotated and (known := _of_annotation(annotation)):
        return known | none
    match default:
        case bool():
            return Kinds({"bool"})
        case int() | float():
            return Kinds({"number", "list"}) if annotated else NUMBERS  # such as ArrayLike
        case list() | tuple():
            return Kinds({"list"})
        case str() if not annotated:
            return Kinds({"text"})
    return none


def _of_annotation(annotation: Any) -> Kinds:
    """The kinds of an annotation; empty if a part of it is not a plain type."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [_of_annotation(part) for part in typing.get_args(annotation)]
        return Kinds().union(*parts) if all(parts) else Kinds()
    try:
        return Kinds({KINDS_OF_TYPES[origin or annotation]})
    except (KeyError, TypeError):  # TypeError: an unhashable annotation
        return Kinds()


def _list(text: str) -> Any:
    try:
        return json.loads(text.replace("(", "[").replace(")", "]"))
    except ValueError:
        return text


def _is_array(values: Any) -> bool:
    """Whether these are finite numbers in a rectangular array."""
    try:
        array = np.asarray(values)
    except ValueError:
        return False
    return array.dtype.kind in "iuf" and bool(np.isfinite(array).all())


def _tuples(values: Any) -> Any:
    """Converts nested lists to tuples, which are hashable."""
    return tuple(map(_tuples, values)) if isinstance(values, list | tuple) else values
