"""Types and helpers shared by the command-line parsers. It does not import jax."""

import argparse
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from jaxrl.cli import terminal
from jaxrl.devices import machine
from jaxrl.errors import InvalidValue
from jaxrl.runs.disk import user_path
from jaxrl.value_text import finite_number, whole_number

OBJECT = 200
"""Approximate size of a small Python object, such as a dictionary with one entry, in bytes."""


class Parser(argparse.ArgumentParser):
    """Raises InvalidValue instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValue(f"{message} (see {self.prog.removesuffix(' [flags]')} --help)")


def kind(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wraps a converter so that argparse shows its error message."""

    def converter(text: str) -> Any:
        try:
            return convert(text)
        except InvalidValue as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converter


def check_many(flag: str, number: int) -> None:
    """Raises ValueError if that many Python objects do not fit into memory."""
    limit = machine.memory()
    if limit is not None and number * OBJECT > limit:
        raise InvalidValue(
            f"{flag} is {number}: that many do not fit into {limit / 2**30:,.1f} GiB of memory, "
            "give fewer"
        )


@kind
def file_path(text: str) -> Path:
    """A valid path, which may not exist yet; `~` is expanded, as shells skip `--run-dir=~/x`."""
    try:
        path = user_path(text)
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InvalidValue(f"{text[:60]!r} is not a valid path: {error.strerror}") from None
    except ValueError as error:  # a null character, or no home directory
        raise InvalidValue(f"{text[:60]!r} is not a valid path: {error}") from None
    return path


@kind
def count(text: str) -> int:
    """A whole number, at least 1."""
    number = whole_number(text)
    if number < 1:
        raise InvalidValue(f"{text} is too small: it must be at least 1")
    return number


@kind
def seconds(text: str) -> float:
    """A number of seconds, at least 0."""
    number = finite_number(text)
    if number < 0:
        raise InvalidValue(f"{text} is too small: it must be at least 0 seconds")
    return number


def fail(message: str, status: int = 2) -> NoReturn:
    """Prints an error line and exits: with 2 for invalid input, with 1 if the machine failed."""
    terminal.say(f"jaxrl: error: {message}")
    raise SystemExit(status)


HYPER = "hyper."
"""Prefix of the names of hyper-parameters in the parsed options."""


def flag_name(name: str) -> str:
    """The flag of an option: `--num-envs` for `num_envs`."""
    return "--" + name.removeprefix(HYPER).replace("_", "-")
