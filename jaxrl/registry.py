"""The algorithms and their hyper-parameters, as flags of the command line.

Agent modules import jax, which `--help` and `list` must not wait for. So the declarations
(`jaxrl.hyper.hyper`) are read from the syntax trees of the modules; a test compares them with the
classes. A field without a declaration is documented by the string below it.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl.errors import InvalidValue, did_you_mean, is_missing
from jaxrl.value_text import SCHEDULES, ScheduleText

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
    "tuple[int, ...] | None": "INT,INT,...|none",
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A hyper-parameter.

    Attributes:
      name: name of the field.
      type: its annotation as text.
      default: its default.
      help: its documentation, a sentence.
      choices: values of a `Literal`; None for other types.
      low, high, open_low: the declared range.
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
        """The range in words; empty for any number."""
        if self.low is None:
            return "" if self.high is None else f"at most {self.high:g}"
        if self.open_low or self.high is None:
            low = f"{'above' if self.open_low else 'at least'} {self.low:g}"
            return low if self.high is None else f"{low}, at most {self.high:g}"
        return f"{self.low:g} to {self.high:g}"


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """An agent: its name on the command line, class, one-line summary and hyper-parameters."""

    name: str
    module: str
    class_name: str
    summary: str
    flags: tuple[Flag, ...]
    python_only: tuple[str, ...] = ()
    """Fields that cannot be written as text, such as a flax module."""

    def build(self, fields: Mapping[str, Any]) -> Any:
        """Builds the agent with these fields, as `value_text.parse` returns them; imports jax."""
        agent = getattr(importlib.import_module(self.module), self.class_name)
        built = {k: v.build() if isinstance(v, ScheduleText) else v for k, v in fields.items()}
        for flag in self.flags:  # an optional choice
            if built.get(flag.name) == "none" and flag.type.endswith("| None"):
                built[flag.name] = None
        return agent(**built)


@functools.cache
def algorithms() -> dict[str, Algorithm]:
    """The agents of `jaxrl.agents`, by module name: modules that define a class of their name."""
    found = {}
    for path in sorted(AGENTS.glob("*.py")):
        for node in _syntax(path):
            if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem.replace("_", ""):
                summary = (ast.get_docstring(node) or "").split("\n")[0]
                fields, module = _fields(_lineage(node), _literals()), f"jaxrl.agents.{path.stem}"
                found[path.stem] = _described(path.stem, module, node.name, summary, fields)
    return found


def algorithm(name: str) -> Algorithm:
    """Looks up an algorithm, or imports a user's class given as `mypackage.module:MyAgent`.

    Raises:
      ValueError: the name is unknown, or the class is not an agent.
    """
    if name in algorithms():
        return algorithms()[name]
    if ":" not in name:
        raise InvalidValue(f"there is no algorithm {name!r}: {did_you_mean(name, algorithms())}")
    return _own(name)


@functools.cache
def _own(name: str) -> Algorithm:
    """The agent at an import path; annotations and documentation are read from its source."""
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not is_missing(module_name, error):
            raise
        raise InvalidValue(
            f"there is no algorithm {name!r}: no module {module_name!r} is found from here"
        ) from None
    from jaxrl.agent import Agent
    from jaxrl.hyper import declarations
    from jaxrl.schedules import Schedule

    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Agent)):
        raise InvalidValue(f"{name} is not an agent: give a subclass of jaxrl.Agent")
    nodes = [_node_of(base) for base in cls.__mro__ if issubclass(base, Agent)]
    written = {flag.name: flag for flag in _fields(nodes, _literals() | _literals_in(module))}
    declared, flags = declarations(cls), []
    for field in dataclasses.fields(cls):
        if field.name not in written or field.name == "spec":  # which `bind` sets
            continue
        default: Any = field.default
        if default is dataclasses.MISSING:
            raise InvalidValue(f"{name} has no default for {field.name}: give it one")
        if isinstance(default, Schedule):
            default = ScheduleText(type(default).__name__.lower(), dataclasses.astuple(default))
        flag = dataclasses.replace(written[field.name], default=default)
        if (told := declared.get(field.name)) is not None:
            flag = dataclasses.replace(
                flag, help=told.doc, low=told.low, high=told.high, open_low=told.open_low
            )
        flags.append(flag)
    return _described(name, module_name, class_name, (cls.__doc__ or "").split("\n")[0], flags)


def _described(
    name: str, module: str, class_name: str, summary: str, fields: list[Flag]
) -> Algorithm:
    return Algorithm(
        name,
        module,
        class_name,
        summary,
        tuple(field for field in fields if _can_be_typed(field)),
        tuple(field.name for field in fields if not _can_be_typed(field)),
    )


def _node_of(cls: type) -> ast.ClassDef:
    """The syntax tree of an imported class."""
    path = inspect.getsourcefile(cls)
    nodes = [] if path is None else _syntax(Path(path))
    return next(n for n in nodes if isinstance(n, ast.ClassDef) and n.name == cls.__name__)


@functools.cache
def _syntax(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


@functools.cache
def _classes() -> dict[str, ast.ClassDef]:
    """All classes of `jaxrl.agents`, by name."""
    nodes = [node for path in AGENTS.rglob("*.py") for node in _syntax(path)]
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def _lineage(node: ast.ClassDef) -> list[ast.ClassDef]:
    """A class and its bases in `jaxrl.agents`, in method resolution order."""
    bases = [_classes()[ast.unparse(b)] for b in node.bases if ast.unparse(b) in _classes()]
    found = [node, *(above for base in bases for above in _lineage(base))]
    return [x for i, x in enumerate(found) if x not in found[i + 1 :]]


def _can_be_typed(field: Flag) -> bool:
    return field.type in SHOWN_TYPES or field.choices is not None


def _fields(lineage: list[ast.ClassDef], literals: Mapping[str, tuple[str, ...]]) -> list[Flag]:
    """The fields of a class, then of its bases; `literals` maps names of types to choices."""
    found: dict[str, Flag] = {}
    for cls in lineage:
        for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if not ast.unparse(field.annotation).startswith("ClassVar"):
                flag = _flag(field.target.id, field, after, literals)
                nearer = found.setdefault(flag.name, flag)
                if not nearer.help:  # the subclass only changes the default
                    declared = dataclasses.replace(flag, type=nearer.type, default=nearer.default)
                    found[flag.name] = declared
    return list(found.values())


def _flag(
    name: str,
    field: ast.AnnAssign,
    after: ast.stmt | None,
    literals: Mapping[str, tuple[str, ...]],
) -> Flag:
    """Parses a field and the statement after it, which may be its documentation."""
    kind = re.sub(r"(\w+\.)+(?=\w)", "", ast.unparse(field.annotation))  # types.Scalar
    kind = re.sub(r"\bfloat\b", "Scalar", kind)
    choices = _choices(field.annotation, literals)
    default = _default(field.value)
    if _call(field.value) == "hyper":
        given = {k.arg: k.value for k in field.value.keywords}  # type: ignore[union-attr]
        said = {k: _constant(v) for k, v in given.items() if k in ("low", "high", "open_low")}
        return Flag(name, kind, default, ast.literal_eval(given["doc"]), choices, **said)
    text = ""
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        text = str(after.value.value)
    return Flag(name, kind, default, text, choices)


def _choices(
    annotation: ast.expr, literals: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...] | None:
    """The values of a `Literal`, also inside a union, and "none" if None is allowed."""
    if isinstance(annotation, ast.BinOp):
        parts = [_choices(part, literals) for part in (annotation.left, annotation.right)]
        found = [choice for part in parts if part for choice in part]
        none = ["none"] if ast.unparse(annotation.right) == "None" and found else []
        return tuple(found + none) or None
    return _literal(annotation) or literals.get(ast.unparse(annotation))


def _call(value: ast.expr | None) -> str | None:
    """The name of the called function; None if it is not a call."""
    return ast.unparse(value.func) if isinstance(value, ast.Call) else None


def _constant(node: ast.expr) -> Any:
    """The value of a literal, or of a constant of `jaxrl.validation`."""
    if isinstance(node, ast.Name):
        for other in _syntax(AGENTS.parent / "validation.py"):
            if isinstance(other, ast.Assign) and ast.unparse(other.targets[0]) == node.id:
                return ast.literal_eval(other.value)
    return ast.literal_eval(node)


@functools.cache
def _literals() -> dict[str, tuple[str, ...]]:
    """The choices of all `Name = Literal["a", "b"]` in the library, by name."""
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


def _literals_in(module: Any) -> dict[str, tuple[str, ...]]:
    """`_literals` for an imported module."""
    named = {name: x for name, x in vars(module).items() if typing.get_origin(x) is typing.Literal}
    return {name: typing.get_args(x) for name, x in named.items()}


def _literal(node: ast.expr) -> tuple[str, ...] | None:
    """The strings in `Literal[...]`; None for anything else."""
    if not (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"):
        return None
    values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return tuple(ast.literal_eval(value) for value in values)


def _default(value: ast.expr | None) -> Any:
    """The default of a field: a literal or a schedule, possibly inside `hyper` or `static`."""
    kind = (_call(value) or "").lower()
    if isinstance(value, ast.Call) and kind not in SCHEDULES:
        default = next((k.value for k in value.keywords if k.arg == "default"), None)
        return _default(value.args[0] if value.args else default)
    if isinstance(value, ast.Call):
        return ScheduleText(kind, tuple(ast.literal_eval(number) for number in value.args))
    assert value is not None, "a hyper-parameter needs a literal default"
    return ast.literal_eval(value)
