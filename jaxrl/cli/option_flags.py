"""Command-line flags generated from the declared options of a run. It does not import jax."""

import argparse
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxrl.cli.parsing import count, flag_name, kind, seconds
from jaxrl.engine.options import Kind, Option, Options, Role
from jaxrl.runs.run_config import SCHEMA
from jaxrl.value_text import finite_number, whole_number

O = TypeVar("O", bound=Options)

FLAGS = {name: option for name, option in SCHEMA.items() if option.is_flag}
"""Options that are flags, by name."""
OF_RESUME = {
    name: option
    for name, option in FLAGS.items()
    if option.may_grow or option.role is Role.FOLLOWING
}
"""Flags that may change on resume."""
SETTINGS = {
    **{name: option.kind is Kind.SWITCH for name, option in FLAGS.items()},
    **dict.fromkeys(("seed", "seeds"), False),
}
"""Settings that a file may contain, and whether each is a switch."""

READ = {
    Kind.COUNT: (count, "INT"),
    Kind.STEPS: (count, "INT"),
    Kind.SECONDS: (seconds, "FLOAT"),
    Kind.NUMBER: (kind(finite_number), "FLOAT"),
    Kind.TEXT: (str, "TEXT"),
}
"""Parser and placeholder of each kind of value."""


def add_flags(group: Any, options: Mapping[str, Option], *, with_defaults: bool = True) -> None:
    """Adds flags for these options; `resume` has none of their defaults (`with_defaults`)."""
    for name, option in options.items():
        default = option.for_command if with_defaults else None
        shown = option.shown or _shown(default)
        text = f"{option.doc} (default: {shown})" if with_defaults and shown else option.doc
        how: dict[str, Any] = {"default": default, "help": text.replace("%", "%%")}
        if option.kind is Kind.SWITCH:
            how["action"] = argparse.BooleanOptionalAction
        elif option.kind is Kind.CHOICE:
            how["choices"] = option.choices
        else:
            assert option.kind is not None
            how["type"], metavar = READ[option.kind]
            if option.kind is Kind.COUNT and option.least == 0:
                how["type"] = kind(whole_number)
            how["metavar"] = option.metavar or metavar
        group.add_argument(flag_name(name), **how)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "" if default is None else f"{default}"


def options_of(kind: type[O], given: argparse.Namespace, otherwise: Mapping[str, Any] = {}) -> O:
    """Options of this class from `given`, then from `otherwise`, then from the defaults."""
    words = {name: value for name, value in vars(given).items() if value is not None}
    return kind.of({**otherwise, **words})
