"""Flags from the declared options of a run, and options from what was given. Imports no jax."""

import argparse
from collections.abc import Mapping
from typing import Any, TypeVar

from jaxrl.cli.parsing import count, kind, seconds, spelled
from jaxrl.engine.options import Kind, Option, Options, Role
from jaxrl.runs.run_config import SCHEMA
from jaxrl.value_text import finite_number

O = TypeVar("O", bound=Options)

FLAGS = {name: option for name, option in SCHEMA.items() if option.is_flag}
"""The options of a run that are flags, by name."""
OF_RESUME = {
    name: option
    for name, option in FLAGS.items()
    if option.may_grow or option.role is Role.FOLLOWING
}
"""Those that a run may have otherwise when it goes on."""
SETTINGS = {
    **{name: option.kind is Kind.SWITCH for name, option in FLAGS.items()},
    **dict.fromkeys(("seed", "seeds"), False),
}
"""What a file may set for a run, and whether it is on or off."""

READ = {
    Kind.COUNT: (count, "INT"),
    Kind.STEPS: (count, "INT"),
    Kind.SECONDS: (seconds, "FLOAT"),
    Kind.NUMBER: (kind(finite_number), "FLOAT"),
    Kind.TEXT: (str, "TEXT"),
}
"""How a flag's value is read, and what `--help` shows for it."""


def add_flags(group: Any, options: Mapping[str, Option], *, anew: bool = True) -> None:
    """Adds the flags of these options; those of a run that goes on have no defaults."""
    for name, option in options.items():
        default = option.for_command if anew else None
        shown = option.shown or _shown(default)
        text = f"{option.doc} (default: {shown})" if anew and shown else option.doc
        how: dict[str, Any] = {"default": default, "help": text.replace("%", "%%")}
        if option.kind is Kind.SWITCH:
            how["action"] = argparse.BooleanOptionalAction
        elif option.kind is Kind.CHOICE:
            how["choices"] = option.choices
        else:
            assert option.kind is not None
            how["type"], metavar = READ[option.kind]
            how["metavar"] = option.metavar or metavar
        group.add_argument(spelled(name), **how)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "" if default is None else f"{default}"


def options_of(kind: type[O], given: argparse.Namespace, otherwise: Mapping[str, Any] = {}) -> O:
    """Options of this class, as given; what was not is as `otherwise` says, or the default."""
    words = {name: value for name, value in vars(given).items() if value is not None}
    return kind.of({**otherwise, **words})
