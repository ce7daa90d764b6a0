"""Types of environments' parameters: a value fits the type of its parameter, or is refused.

The command line reads numbers, true and false without knowing what they are for, and leaves the
rest as texts (`jaxrl.registry.plain_value`). Here they meet the parameter: an annotation tells what
it takes, or else its default. Arrays and other objects that Python gives pass as they are.
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
"""What a parameter takes: names of `EXAMPLES`; without any, or with "none" alone, anything."""

EXAMPLES = {
    "bool": ("true or false", "true"),
    "int": ("a whole number", "5"),
    "number": ("a number", "0.5"),
    "list": ("a list of numbers", "[0,1]"),
    "text": ("a text", "'\"text\"'"),
    "none": ("none", "none"),
}
"""Each kind in words, and a value as the command line writes it."""
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
    """`params` as the function (or class) takes them.

    Args:
      function: its annotations and defaults tell the types; a name that it does not list passes.
      params: names to values.
      owner: whose parameters they are, in messages.

    Raises:
      ValueError: a value of another type, with an example of what would fit.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that only a type checker can resolve
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a built-in, which has none
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
    """One value as a parameter of these kinds takes it.

    Raises:
      ValueError: `said`, followed by what the parameter called `name` takes.
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
    raise InvalidValue(f"{said}: give {' or '.join(words)}, {name}={example} say")


def _choices(annotation: Any) -> dict[str, Any]:
    """The values of a `Literal` or an `Enum` by their texts; of None or another type, nothing."""
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
    """The choice that a value or its text names.

    Raises:
      ValueError: `said`, followed by the choices.
    """
    for text, choice in choices.items():
        if (type(value) is type(choice) and value == choice) or str(value).lower() == text.lower():
            return choice
    raise InvalidValue(f"{said}: give {' or '.join(choices)}")


def check_size(number: int | float, said: str) -> None:
    """Raises ValueError, `said` and why, unless the number fits jax's default dtypes."""
    largest = 2**31 - 1 if isinstance(number, int) else float(np.finfo(np.float32).max)
    if not abs(number) <= largest:
        dtype = "int32" if isinstance(number, int) else "float32"
        raise InvalidValue(f"{said}: it must be finite, and fit {dtype}")


def _kinds(annotation: Any, default: Any) -> Kinds:
    """What a parameter takes, by its annotation or, where that does not tell, its default."""
    none = Kinds({"none"} if default is None else ())
    annotated = annotation is not inspect.Parameter.empty
    if annotated and (known := _of_annotation(annotation)):
        return known | none
    match default:
        case bool():
            return Kinds({"bool"})
        case int() | float():
            return Kinds({"number", "list"}) if annotated else NUMBERS  # ArrayLike, say
        case list() | tuple():
            return Kinds({"list"})
        case str() if not annotated:
            return Kinds({"text"})
    return none


def _of_annotation(annotation: Any) -> Kinds:
    """The kinds of an annotation; none where a part of it is no plain type."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [_of_annotation(part) for part in typing.get_args(annotation)]
        return Kinds().union(*parts) if all(parts) else Kinds()
    try:
        return Kinds({KINDS_OF_TYPES[origin or annotation]})
    except (KeyError, TypeError):  # TypeError: an annotation without a hash
        return Kinds()


def _list(text: str) -> Any:
    try:
        return json.loads(text.replace("(", "[").replace(")", "]"))
    except ValueError:
        return text


def _is_array(values: Any) -> bool:
    """Whether these are numbers, in rows of one length."""
    try:
        array = np.asarray(values)
    except ValueError:
        return False
    return array.dtype.kind in "iuf" and bool(np.isfinite(array).all())


def _tuples(values: Any) -> Any:
    """Nested tuples, which have a hash."""
    return tuple(map(_tuples, values)) if isinstance(values, list | tuple) else values
