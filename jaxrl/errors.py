"""What jaxrl raises on purpose. Imports no jax.

Each message names what is wrong, the value found and the remedy. The command line prints these as
one line; any other exception is a defect of jaxrl or of your own code, and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class JaxrlError(Exception):
    """Base of all errors that jaxrl raises on purpose."""


class InvalidValue(JaxrlError, ValueError):
    """A value that does not fit."""


class InvalidType(JaxrlError, TypeError):
    """An object of the wrong kind."""


class Unable(JaxrlError, RuntimeError):
    """What was asked for cannot be done: a download fails, every seed diverges."""


def is_missing(module: str, error: ModuleNotFoundError) -> bool:
    """Whether `module` was not found, or a package of its path; else something that it imports."""
    return error.name is not None and f"{module}.".startswith(f"{error.name}.")


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """A hint at the names nearest to `word`; without any, `otherwise`, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return otherwise or f"use {' or '.join(known)}"
