"""Command-line flags from the hyper-parameters of the agents, read from their source.

`--help` and `list` must not wait for jax, and every agent module imports it. So the declarations
(`jaxrl.hyper.hyper`) are read from the syntax tree; a test compares them with the classes. A field
without one is documented by the text below it.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl.errors import InvalidValue

AGENTS = Path(__file__).parent / "agents"

SHOWN_TYPES = {
    "int": "INT",
    "int | None": "INT|none",
    "bool": "",
    "str": "TEXT",
    "Scalar": "FLOAT",
    "Scalar | None": "FLOAT|none",
    "Scheduled": "FLOAT|SCHEDULE",
    "Scheduled | None": "FLOAT|SCHEDULE|none",
    "tuple[int, ...]": "INT,INT,...",
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """One hyper-parameter.

    Attributes:
      name: of the field.
      type: the text of its annotation.
      default: the value where none is given.
      help: its documentation, a sentence.
      choices: the values of a `Literal`.
      low, high, open_low: the range that it was declared with.
    """

    name: str
    type: str
    default: Any
    help: str
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    open_low: bool = False

    @property
    def range(self) -> str:
        """The range in words, "" for any number."""
        if self.low is None:
            return "" if self.high is None else f"at most {self.high:g}"
        if self.open_low or self.high is None:
            low = f"{'above' if self.open_low else 'at least'} {self.low:g}"
            return low if self.high is None else f"{low}, at most {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One agent: the name on the command line, the class, a sentence and its hyper-parameters."""

    name: str
    module: str
    class_name: str
    summary: str
    flags: tuple[Flag, ...]
    python_only: tuple[str, ...] = ()
    """Fields that no text can give: a flax module, say."""

    def build(self, fields: Mapping[str, Any]) -> Any:
        """The agent with these hyper-parameters, as `parse` reads them; imports jax."""
        agent = getattr(importlib.import_module(self.module), self.class_name)
        built = {k: v.build() if isinstance(v, ScheduleText) else v for k, v in fields.items()}
        for flag in self.flags:  # a choice among names or None
            if built.get(flag.name) == "none" and flag.type.endswith("| None"):
                built[flag.name] = None
        return agent(**built)


@functools.cache
def algorithms() -> dict[str, Algorithm]:
    """Every module of `jaxrl.agents` that defines a class of its own name, by that name."""
    found = {}
    for path in sorted(AGENTS.glob("*.py")):
        for node in _syntax(path):
            if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem.replace("_", ""):
                summary = (ast.get_docstring(node) or "").split("\n")[0]
                fields = _fields(node)
                found[path.stem] = Algorithm(
                    path.stem,
                    f"jaxrl.agents.{path.stem}",
                    node.name,
                    summary,
                    tuple(field for field in fields if _can_be_typed(field)),
                    tuple(field.name for field in fields if not _can_be_typed(field)),
                )
    return found


@functools.cache
def _syntax(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


@functools.cache
def _classes() -> dict[str, ast.ClassDef]:
    """Every class of `jaxrl.agents`, by its name."""
    nodes = [node for path in AGENTS.rglob("*.py") for node in _syntax(path)]
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def _lineage(node: ast.ClassDef) -> list[ast.ClassDef]:
    """A class and its bases in `jaxrl.agents`, in the order in which Python looks names up."""
    bases = [_classes()[ast.unparse(b)] for b in node.bases if ast.unparse(b) in _classes()]
    found = [node, *(above for base in bases for above in _lineage(base))]
    return [x for i, x in enumerate(found) if x not in found[i + 1 :]]


def _can_be_typed(field: Flag) -> bool:
    return field.type in SHOWN_TYPES or field.choices is not None


def _fields(node: ast.ClassDef) -> list[Flag]:
    """The fields of a class and, after them, of its bases in `jaxrl.agents`."""
    found: dict[str, Flag] = {}
    for cls in _lineage(node):
        for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if not ast.unparse(field.annotation).startswith("ClassVar"):
                flag = _flag(field.target.id, field, after)
                nearer = found.setdefault(flag.name, flag)
                if not nearer.help:  # another default only, of what a base declares
                    declared = dataclasses.replace(flag, type=nearer.type, default=nearer.default)
                    found[flag.name] = declared
    return list(found.values())


def _flag(name: str, field: ast.AnnAssign, after: ast.stmt | None) -> Flag:
    """A field by its syntax and by the statement after it, which may be its documentation."""
    kind = ast.unparse(field.annotation)
    choices = _choices(field.annotation)
    default = _default(field.value)
    if _call(field.value) == "hyper":
        given = {k.arg: k.value for k in field.value.keywords}  # type: ignore[union-attr]
        said = {k: _constant(v) for k, v in given.items() if k in ("low", "high", "open_low")}
        return Flag(name, kind, default, ast.literal_eval(given["doc"]), choices, **said)
    text = ""
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        text = str(after.value.value)
    return Flag(name, kind, default, text, choices)


def _choices(annotation: ast.expr) -> tuple[str, ...] | None:
    """The values of a `Literal`, also of one in a union, and "none" where None is allowed."""
    if isinstance(annotation, ast.BinOp):
        parts = [_choices(part) for part in (annotation.left, annotation.right)]
        found = [choice for part in parts if part for choice in part]
        none = ["none"] if ast.unparse(annotation.right) == "None" and found else []
        return tuple(found + none) or None
    return _literal(annotation) or _literals().get(ast.unparse(annotation))


def _call(value: ast.expr | None) -> str | None:
    """The name of the function that is called, if one is."""
    return ast.unparse(value.func) if isinstance(value, ast.Call) else None


def _constant(node: ast.expr) -> Any:
    """A literal, or a constant of `jaxrl.validation`."""
    if isinstance(node, ast.Name):
        for other in _syntax(AGENTS.parent / "validation.py"):
            if isinstance(other, ast.Assign) and ast.unparse(other.targets[0]) == node.id:
                return ast.literal_eval(other.value)
    return ast.literal_eval(node)


@functools.cache
def _literals() -> dict[str, tuple[str, ...]]:
    """Every `Name = Literal["a", "b"]` of the library, by its name."""
    found = {}
    for path in [
        AGENTS.parent / "optimizers.py",
        *AGENTS.parent.glob("networks/*.py"),
        *AGENTS.rglob("*.py"),
    ]:
        for node in _syntax(path):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                choices = _literal(node.value)
                if choices is not None:
                    found[node.targets[0].id] = choices
    return found


def _literal(node: ast.expr) -> tuple[str, ...] | None:
    """The texts in `Literal[...]`, None for anything else."""
    if not (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"):
        return None
    values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return tuple(ast.literal_eval(value) for value in values)


def _default(value: ast.expr | None) -> Any:
    """The literal default, also from `hyper(...)` or `static(default=...)`, or a schedule."""
    kind = (_call(value) or "").lower()
    if isinstance(value, ast.Call) and kind not in SCHEDULES:
        default = next((k.value for k in value.keywords if k.arg == "default"), None)
        return _default(value.args[0] if value.args else default)
    if isinstance(value, ast.Call):
        return ScheduleText(kind, tuple(ast.literal_eval(number) for number in value.args))
    assert value is not None, "a hyper-parameter needs a literal default"
    return ast.literal_eval(value)


# From text to value -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ScheduleText:
    """A schedule as typed, `linear:2.5e-4:0`; built once jax is there."""

    kind: str
    numbers: tuple[float, ...]

    def __str__(self) -> str:
        return ":".join([self.kind, *map(str, self.numbers)])

    def build(self) -> Any:
        from jaxrl import schedules

        return getattr(schedules, self.kind.capitalize())(*self.numbers)


SCHEDULES = {"linear": (1, 3), "exponential": (2, 2), "cosine": (1, 2)}
"""Kinds of schedules to the least and the most numbers they take."""


def parse(kind: str, text: str) -> Any:
    """The value of a flag of type `kind`.

    Raises:
      ValueError: the text is no such value; the message says what would be.
    """
    match kind:
        case _ if kind.endswith("| None") and text.lower() == "none":
            return None
        case "int" | "int | None":
            return whole_number(text)
        case "Scalar" | "Scalar | None":
            return finite_number(text)
        case "Scheduled" | "Scheduled | None":
            return _schedule(text) if ":" in text else finite_number(text)
        case "tuple[int, ...]":
            return tuple(whole_number(part) for part in text.split(","))
    return text


def plain_value(text: str) -> Any:
    """What a text means where no type is known: a number, true or false, or else the text itself.

    In double quotes, as JSON writes them, it is a text whatever is in it.

    Raises:
      ValueError: a number that is not finite.
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        float(text)
    except ValueError:
        return _unquoted(text)
    number = finite_number(text)
    return int(text) if text.lstrip("+-").isdigit() else number


def text_of_plain(value: bool | float | str) -> str:
    """The text of which `plain_value` makes this value."""
    if not isinstance(value, str):
        return str(value).lower()
    try:
        same = value != "" and plain_value(value) == value
    except ValueError:
        same = False
    return value if same else json.dumps(value)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return text


def whole_number(text: str) -> int:
    """An integer, also written 500_000 or 5e5."""
    try:
        number: float = int(text)
    except ValueError:
        number = finite_number(text)
    if number != int(number):
        raise InvalidValue(f"{text!r} is not a whole number")
    if abs(number) >= 2**63:
        raise InvalidValue(f"{text!r} is too large")
    return int(number)


def finite_number(text: str) -> float:
    """A float that is neither NaN nor infinite."""
    try:
        number = float(text)
    except ValueError:
        raise InvalidValue(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise InvalidValue(f"{text!r} is not a finite number")
    return number


def _schedule(text: str) -> ScheduleText:
    kind, *numbers = text.split(":")
    if kind not in SCHEDULES:
        raise InvalidValue(f"{text!r} is no schedule: write a number, or linear:START:END")
    least, most = SCHEDULES[kind]
    if not least <= len(numbers) <= most:
        takes = f"{least} to {most}" if least < most else f"{least}"
        raise InvalidValue(f"{text!r}: {kind} takes {takes} numbers, {kind}:START:END")
    return ScheduleText(kind, tuple(finite_number(n) for n in numbers))


SCHEDULE_FIELDS = ("start", "end", "share")


def value_text(name: str, value: Any) -> str:
    """A value of config.json as the command line writes it."""
    if isinstance(value, dict):
        return _schedule_text(name, value)
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _schedule_text(name: str, value: dict[str, Any]) -> str:
    """`{"linear": {"start": 1, "end": 0}}`, as config.json has it, in the form `linear:1:0`."""
    example = '"linear:1e-3:0"'
    if len(value) != 1 or next(iter(value)) not in SCHEDULES:
        raise InvalidValue(f"{name} is no schedule: write {example} say")
    ((kind, numbers),) = value.items()
    fields = SCHEDULE_FIELDS[: SCHEDULES[kind][1]]
    if not isinstance(numbers, dict) or list(numbers) != list(fields[: len(numbers)]):
        raise InvalidValue(
            f"{name}: {kind} takes {', '.join(fields)}, in this order: {example} say"
        )
    return ":".join([kind, *map(str, numbers.values())])
