"""What the command line's parsers share. Imports no jax."""

import argparse
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from jaxrl.cli import terminal
from jaxrl.errors import InvalidValue
from jaxrl.runs.disk import user_path
from jaxrl.value_text import finite_number, whole_number
from jaxrl.xla import deadlock

OBJECT = 200
"""Bytes of a small Python object, at least: a dictionary of one entry, say."""


class Parser(argparse.ArgumentParser):
    """Raises InvalidValue for a mistake instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise InvalidValue(f"{message} (see {self.prog.removesuffix(' [flags]')} --help)")


def kind(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A converter whose own message reaches the user."""

    def converter(text: str) -> Any:
        try:
            return convert(text)
        except InvalidValue as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converter


def check_many(flag: str, number: int) -> None:
    """Raises ValueError where so many Python objects do not fit into the machine's memory."""
    limit = deadlock.memory()
    if limit is not None and number * OBJECT > limit:
        raise InvalidValue(
            f"{flag} is {number}: that many do not fit into {limit / 2**30:,.1f} GiB of memory"
        )


@kind
def file_path(text: str) -> Path:
    """A path that the system can name; whether something is there is not looked at.

    Shells leave the `~` of `--run-dir=~/x` to the program.
    """
    try:
        path = user_path(text)
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InvalidValue(f"{text[:60]!r} is no path: {error.strerror}") from None
    except ValueError as error:  # a null character, or no home directory
        raise InvalidValue(f"{text[:60]!r} is no path: {error}") from None
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
    """Prints one clear line and exits: with 2 for bad input, with 1 where the machine failed."""
    terminal.say(f"jaxrl: error: {message}")
    raise SystemExit(status)


HYPER = "hyper."
"""Before the names of hyper-parameters among the options."""


def spelled(name: str) -> str:
    return "--" + name.removeprefix(HYPER).replace("_", "-")
