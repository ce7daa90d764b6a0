"""Hyper-parameters declare their range, documentation and role at the field; `bind` checks them."""

import dataclasses
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from flax import struct

from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.schedules import Exponential, Linear, Scheduled, bounds
from jaxrl.validation import check_numbers, check_whole

METADATA = "hyper"
"""The key of a declaration in the metadata of its dataclass field."""


@dataclasses.dataclass(frozen=True)
class Declaration:
    """The declaration of a field; see `hyper` for its arguments."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    may_end_low: bool = False
    doc: str = ""
    static: bool = False

    def check(self, owner: Any, name: str, kind: Any) -> None:
        """Raises ValueError or TypeError unless `owner.name`, annotated `kind`, is valid."""
        value, kinds = getattr(owner, name), _alternatives(kind)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        choices = [x for k in kinds if typing.get_origin(k) is Literal for x in typing.get_args(k)]
        if choices:
            functions = any(typing.get_origin(k) is Callable for k in kinds)
            missing = value is None and types.NoneType in kinds
            if not (missing or (functions and callable(value))):
                check_choice(name, value, choices, ", or a function" if functions else "")
        elif int in kinds:
            least = 1 if self.low is None else int(self.low)
            most = None if self.high is None else int(self.high)
            check_whole(name, value, least, most=most, or_none=types.NoneType in kinds)
        elif self.static and float in kinds:
            if value is None and types.NoneType in kinds:
                return
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise InvalidType(
                    f"{name} is {value!r}: give one Python number, which is compiled into the "
                    "program"
                )
            check_range(owner, name, low, high, open_low=self.open_low)
        elif not self.static:
            ends = {"open_low": self.open_low, "may_end_low": self.may_end_low}
            check_range(owner, name, low, high, **ends)


def hyper(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
    may_end_low: bool = False,
    doc: str = "",
    static: bool = False,
    kw_only: bool = False,
) -> Any:
    """Declares a hyper-parameter: its default, valid values and documentation.

    The annotation gives the type: `Scalar` and `Scheduled` are numbers that `jax.vmap` can sweep;
    with `static`, `int` is a whole number, and a `Literal` takes its choices. `| None` allows None.
    A subclass that only changes the default, `num_envs: int = 8`, keeps the declaration.

    Args:
      default: the default.
      low: smallest value; by default 1 for whole numbers and no limit for others.
      high: largest value; None for no limit.
      open_low: whether `low` itself is excluded.
      may_end_low: whether a schedule may nevertheless end at `low`.
      doc: a sentence for `--help`.
      kw_only: whether it is passed by name only, in subclasses too.
      static: whether the value is structure (sizes, choices, flags, modules), which is compiled
        into the program and cannot be swept by `jax.vmap`.
    """
    declared = Declaration(low, high, open_low, may_end_low, doc, static)
    metadata = {METADATA: declared}
    return struct.field(pytree_node=not static, default=default, metadata=metadata, kw_only=kw_only)


def declarations(agent: Any) -> dict[str, Declaration]:
    """The declared hyper-parameters of an agent or its class, by name."""
    fields = dataclasses.fields(agent)
    return {f.name: f.metadata[METADATA] for f in fields if METADATA in f.metadata}


def inherit_declarations(cls: type) -> None:
    """Adds inherited declarations to the fields of a class under construction."""
    for name in inspect.get_annotations(cls):
        inherited = (vars(base).get("__dataclass_fields__", {}).get(name) for base in cls.__mro__)
        base = next((field for field in inherited if field is not None), None)
        if base is None or METADATA not in base.metadata or name not in vars(cls):
            continue
        value = vars(cls)[name]
        if not isinstance(value, dataclasses.Field):
            declared = base.metadata[METADATA]
            fresh = hyper(value, **dataclasses.asdict(declared), kw_only=base.kw_only)
            setattr(cls, name, fresh)
            continue
        value.kw_only = value.kw_only is True or base.kw_only
        if METADATA not in value.metadata:
            metadata = {METADATA: base.metadata[METADATA], **value.metadata}
            value.metadata = types.MappingProxyType(metadata)


def check_declared(agent: Any) -> None:
    """Raises ValueError or TypeError for an invalid hyper-parameter, naming it."""
    kinds = {field.name: field.type for field in dataclasses.fields(agent)}
    for name, declared in declarations(agent).items():
        kind = kinds[name]
        if isinstance(kind, str):  # from __future__ import annotations
            kind = typing.get_type_hints(type(agent))[name]
        declared.check(agent, name, kind)


def check_choice(name: str, value: Any, choices: list[str], also: str = "") -> None:
    """Raises ValueError unless `value`, called `name`, is one of the choices."""
    if value not in choices:
        if len(choices) == 2:
            raise InvalidValue(f"{name} is {value!r}: use {choices[0]!r} or {choices[1]!r}{also}")
        raise InvalidValue(f"{name} is {value!r}: use one of {', '.join(choices)}{also}")


def check_range(
    owner: Any,
    name: str,
    low: float = 0.0,
    high: float = math.inf,
    *,
    open_low: bool = False,
    may_end_low: bool = False,
) -> None:
    """Raises ValueError unless the hyper-parameter `owner.name` lies within `[low, high]`.

    Numbers, arrays of them and schedules are checked; None and traced values pass. NaN never does.

    Args:
      owner, name: the hyper-parameter.
      low, high: its range.
      open_low: whether `low` itself is excluded.
      may_end_low: whether a schedule may nevertheless end at `low`.
    """
    value: Scheduled = getattr(owner, name)
    start, *end = bounds(value)
    check_numbers(f"{name} is {value!r}: it", start, low, high, open_low)
    for bound in end:
        check_numbers(f"{name} is {value!r}: it", bound, low, high, open_low and not may_end_low)
    match value:  # a schedule can be NaN in between although both ends are valid
        case Linear(share=share):
            check_numbers(f"{name} is {value!r}: its share", share, 0.0, 1.0, open_low=True)
        case Exponential(start=start, end=end):
            for bound in (start, end):
                check_numbers(f"{name} is {value!r}: either end", bound, 0.0, math.inf, True)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)
