"""Command-line flags from the hyper-parameters of the agents, read from their source.

`--help` and `list` must not wait for jax, and every agent module imports it. So the fields, their
defaults and the sentence below each are read from the syntax tree; a test compares them with the
classes.
"""

import ast
import dataclasses
import functools
from pathlib import Path
from typing import Any

AGENTS = Path(__file__).parent / "agents"
SHOWN_TYPES = {
    "int": "INT",
    "bool": "",
    "Scalar": "FLOAT",
    "Scalar | None": "FLOAT|none",
    "Scheduled": "FLOAT|SCHEDULE",
    "tuple[int, ...]": "INT,INT,...",
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """One hyper-parameter: its name, the text of its type, its default and its documentation."""

    name: str
    type: str
    default: Any
    help: str


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One agent: the name on the command line, the class, a sentence and its hyper-parameters."""

    name: str
    module: str
    class_name: str
    summary: str
    flags: tuple[Flag, ...]


@functools.cache
def algorithms() -> dict[str, Algorithm]:
    """Every module of `jaxrl.agents` that defines a class of its own name, by that name."""
    found = {}
    for path in sorted(AGENTS.glob("*.py")):
        for class_name, node in _classes(path).items():
            if class_name.lower() == path.stem.replace("_", ""):
                summary = (ast.get_docstring(node) or "").split("\n")[0]
                flags = tuple(_flags(path, class_name))
                found[path.stem] = Algorithm(
                    path.stem, f"jaxrl.agents.{path.stem}", class_name, summary, flags
                )
    return found


def _classes(path: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _flags(path: Path, class_name: str) -> list[Flag]:
    """The fields of a class and, after them, of its bases in `jaxrl.agents`."""
    node = _classes(path)[class_name]
    own = []
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        kind = ast.unparse(field.annotation)
        if kind not in SHOWN_TYPES and not kind.isidentifier():
            continue  # a module or another object: for Python only
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = str(after.value.value)
        own.append(Flag(field.target.id, kind, _default(field.value), text))
    inherited = []
    for base in node.bases:
        for other in AGENTS.glob("*.py"):
            if isinstance(base, ast.Name) and base.id in _classes(other):
                inherited = _flags(other, base.id)
    return own + [flag for flag in inherited if flag.name not in {f.name for f in own}]


def _default(value: ast.expr | None) -> Any:
    """The literal default, also from `static(default=...)`."""
    if isinstance(value, ast.Call):
        value = next(k.value for k in value.keywords if k.arg == "default")
    assert value is not None, "a hyper-parameter needs a default"
    return ast.literal_eval(value)


# From text to value -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ScheduleText:
    """A schedule as typed, `linear:2.5e-4:0`; built once jax is there."""

    kind: str
    numbers: tuple[float, ...]

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
        case "int":
            return whole_number(text)
        case "Scalar" | "Scalar | None":
            if text.lower() == "none" and kind.endswith("None"):
                return None
            return _number(text)
        case "Scheduled":
            return _schedule(text) if ":" in text else _number(text)
        case "tuple[int, ...]":
            return tuple(whole_number(part) for part in text.split(","))
    return text


def whole_number(text: str) -> int:
    """An integer, also written 500_000 or 5e5."""
    number = _number(text)
    if number != int(number):
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if number != number or number in (float("inf"), -float("inf")):
        raise ValueError(f"{text!r} is not a finite number")
    return number


def _schedule(text: str) -> ScheduleText:
    kind, *numbers = text.split(":")
    if kind not in SCHEDULES:
        raise ValueError(f"{text!r} is no schedule: write a number, or linear:START:END")
    least, most = SCHEDULES[kind]
    if not least <= len(numbers) <= most:
        raise ValueError(f"{text!r}: {kind} takes {least} to {most} numbers, {kind}:START:END")
    return ScheduleText(kind, tuple(_number(n) for n in numbers))
