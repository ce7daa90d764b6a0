"""Options of a run, each declared once with its role, default, documentation and flag.

`train`, `fit`, the command line, configuration files, config.json, resume and comparison read these
declarations. It does not import jax, to keep the command line fast.
"""

import dataclasses
import enum
import functools
import inspect
import math
import operator
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, dataclass_transform

from jaxrl.errors import InvalidType, InvalidValue, did_you_mean

if TYPE_CHECKING:
    from jaxrl.agent import EvalMode
    from jaxrl.environment import Environment
    from jaxrl.types import PyTree, ResetPolicy

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")
C = TypeVar("C")

UNSET: Any = object()
"""A missing value, since None may be a valid one."""


class Role(enum.Enum):
    """The role of a field, which determines where it is stored and compared."""

    TRAINING = "changes what is learned: the same on resume, and tells learning curves apart"
    SAMPLE = "how often it is measured, and by which seeds: the same on resume, pooled in curves"
    FOLLOWING = "how the run is followed and saved: may change on resume"
    RECORD = "recorded in config.json, but not a setting"
    PYTHON = "a Python object, which neither files nor flags can hold"


class Kind(enum.Enum):
    """The type of an option's values."""

    COUNT = "a whole number"
    STEPS = "a number of steps: a whole number, also written 1e6"
    SECONDS = "a number of seconds, at least 0"
    NUMBER = "a number"
    SWITCH = "True or False"
    CHOICE = "one of `choices`"
    TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of a field, apart from its name, type and default.

    Attributes:
      role: its role.
      doc: a sentence, without its full stop.
      kind: type of its values; None for options that are neither checked nor a flag.
      default: the default; None also makes None a valid value.
      least: the smallest value of a count.
      choices: the values of a choice.
      metavar: placeholder in `--help`, if it differs from the kind's.
      command_default: the command line's default, if it differs.
      shown: the default in words, for `--help`.
      before: the value of runs whose config.json predates the option; by default its default.
      may_grow: whether a resumed run may increase it.
    """

    role: Role
    doc: str
    kind: Kind | None = None
    default: Any = UNSET
    least: int = 1
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    command_default: Any = UNSET
    shown: str | None = None
    before: Any = UNSET
    may_grow: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether it is a flag of the command line."""
        return self.kind is not None and self.role is not Role.PYTHON

    @property
    def for_command(self) -> Any:
        """The default of the flag."""
        changed = self.command_default is not UNSET
        return self.command_default if changed else self.default

    @property
    def assumed(self) -> Any:
        """The value of runs whose config.json lacks it; `UNSET` if unknown."""
        return self.default if self.before is UNSET else self.before

    def check(self, name: str, value: Any) -> Any:
        """Validates and returns a value; an invalid one raises ValueError with its name.

        Checks that depend on the agent or the environment are made elsewhere.
        """
        if value is None and self.default is None:
            return value
        must = ""
        match self.kind:
            case Kind.COUNT:
                number = _whole(value)
                if number is not None and number >= self.least:
                    return number
                must = f"it must be a whole number, at least {self.least}"
            case Kind.STEPS if not (_is_number(value) and 1 <= value < math.inf):
                must = "it must be a number, at least 1"
            case Kind.SECONDS if not (_is_number(value) and value >= 0):
                must = "it must be a number of seconds, at least 0"
            case Kind.NUMBER if not _is_number(value):
                must = "it must be a number"
            case Kind.SWITCH if value not in (True, False):
                must = "it must be True or False"
            case Kind.CHOICE if value not in self.choices:
                must = f"use {' or '.join(map(repr, self.choices))}"
        if must:
            raise InvalidValue(f"{name} is {value!r}: {must}")
        return value


def _whole(value: Any) -> int | None:
    """A Python or NumPy integer as an `int`; None for anything else, including booleans."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _is_number(value: Any) -> bool:
    """Whether it is a number that can be compared, not NaN or text."""
    try:
        return not isinstance(value, str) and not math.isnan(value)
    except (TypeError, ValueError):
        return False


def option(*, default: Any = UNSET, factory: Any = UNSET, **declaration: Any) -> Any:
    """A field with an `Option`; without a default it is required."""
    defaults = {"default": default, "default_factory": factory}
    given: Any = {name: x for name, x in defaults.items() if x is not UNSET}
    return dataclasses.field(**given, metadata={"option": Option(default=default, **declaration)})


def declared(options: Any) -> dict[str, Option]:
    """The declarations of an options class, or of an instance, by name."""
    return {
        field.name: field.metadata["option"]
        for field in dataclasses.fields(options)
        if "option" in field.metadata
    }


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(option, dataclasses.field)
)
def options_class(cls: type[C]) -> type[C]:
    """Class decorator: a frozen, keyword-only dataclass of options."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


@options_class
class Options:
    """Options whose values are validated on construction.

    Raises:
      ValueError: a field has an invalid value.
    """

    def __post_init__(self) -> None:
        for name, declaration in declared(self).items():
            object.__setattr__(self, name, declaration.check(name, getattr(self, name)))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Builds it from `values`, ignoring unknown names."""
        return cls(**{name: values[name] for name in declared(cls) if name in values})

    def values(self) -> dict[str, Any]:
        """The fields by name."""
        return {name: getattr(self, name) for name in declared(self)}

    def settings(self) -> dict[str, Any]:
        """The fields that can be stored in a file."""
        options = declared(self)
        return {k: x for k, x in self.values().items() if options[k].role is not Role.PYTHON}


@options_class
class TrainingOptions(Options):
    """Options that affect what is learned, and how it is evaluated."""

    total_steps: int = option(
        role=Role.TRAINING, kind=Kind.STEPS, command_default=500_000, may_grow=True,
        doc="Environment steps per seed (updates, for an offline agent), rounded up to whole "
        "iterations",
    )  # fmt: skip
    num_eval_episodes: int = option(
        default=64, role=Role.SAMPLE, kind=Kind.COUNT, command_default=128,
        doc="Episodes per evaluation, each in its own copy of the environment",
    )  # fmt: skip
    eval_mode: "EvalMode | None" = option(
        default=None, role=Role.TRAINING, kind=Kind.CHOICE, choices=("greedy", "sample"),
        shown="greedy", before="greedy",
        doc="Actions in evaluations: the mean or most likely action (greedy), or samples from the "
        "policy (sample), for games in which any predictable action loses",
    )  # fmt: skip
    normalize_observations: bool = option(
        default=False, role=Role.TRAINING, kind=Kind.SWITCH,
        doc="Standardise observations by running statistics, or by those of the data set, integers "
        "and bytes included; booleans and action masks are unchanged",
    )  # fmt: skip
    normalize_rewards: bool = option(
        default=False, role=Role.TRAINING, kind=Kind.SWITCH,
        doc="Divide rewards by the standard deviation of the running discounted return",
    )  # fmt: skip
    reset_policy: "ResetPolicy | None" = option(
        default=None, role=Role.TRAINING, kind=Kind.CHOICE, choices=("fresh", "pool"),
        shown="pool if resets are expensive, otherwise fresh",
        doc="Draw a new start state for every reset (fresh), or a pool of start states per "
        "iteration (pool)",
    )  # fmt: skip
    pool_size: int | None = option(
        default=None, role=Role.TRAINING, kind=Kind.COUNT,
        shown="as many as environments, and at least 64",
        doc="Number of start states in the pool",
    )  # fmt: skip
    batched_env: bool = option(
        default=False, role=Role.PYTHON, kind=Kind.SWITCH,
        doc="Whether the leaves of `env` have a leading axis `[num_envs]`, with separate "
        "parameters for each copy",
    )  # fmt: skip
    eval_env: "Environment | None" = option(
        default=None, role=Role.PYTHON,
        doc="The environment for evaluations, by default `env`. It must have the same observations "
        "and actions; parameters, time limit and reset policy may differ",
    )  # fmt: skip
    data: "PyTree" = option(
        default=None, role=Role.PYTHON,
        doc="Transitions with leaves `[D, ...]`, for offline agents",
    )  # fmt: skip
    agent_state: "PyTree" = option(
        default=None, role=Role.PYTHON,
        doc="What to start from instead of `agent.init`: the `TrainState` of an earlier run, or "
        "`load_run(path).start()`. The agent's state and the observation statistics are taken "
        "over, and the reward statistics if both runs have them. Without normalised observations, "
        "an agent's state alone also works",
    )  # fmt: skip


@options_class
class EvaluationOptions(Options):
    """When to evaluate."""

    num_evaluations: int = option(
        default=10, role=Role.FOLLOWING, kind=Kind.COUNT, least=0, command_default=20,
        doc="Number of evaluations, evenly spaced",
    )  # fmt: skip


# Functions that are called with options -----------------------------------------------------------


def called_with(arguments: Callable[P, A]) -> Callable[[Callable[[A], R]], Callable[P, R]]:
    """Lets a function of one dataclass be called with the dataclass's fields.

    Type checkers, editors and `help` see the fields as arguments, with types and defaults.
    """

    def decorate(function: Callable[[A], R]) -> Callable[P, R]:
        signature = inspect.signature(arguments)
        name = function.__qualname__

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for unknown in kwargs.keys() - signature.parameters.keys():
                known = signature.parameters
                hint = did_you_mean(unknown, known, f"it takes {', '.join(known)}")
                raise InvalidType(f"{name} has no argument {unknown!r}: {hint}")
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise InvalidType(f"{name}: {error}") from None
            return function(arguments(*args, **kwargs))

        returns = inspect.signature(function).return_annotation
        call.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n{_documented(arguments)}"
        return call

    return decorate


def _documented(arguments: Any) -> str:
    """The options as the docstring of a function lists its arguments."""
    lines = (f"{name}: {x.doc}." for name, x in declared(arguments).items())
    wrapped = (textwrap.fill(x, 96, subsequent_indent="  ", break_on_hyphens=False) for x in lines)
    return textwrap.indent("\n".join(wrapped), "  ")
