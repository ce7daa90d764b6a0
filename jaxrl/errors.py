"""Errors that jaxrl raises on purpose. It does not import jax.

Each message names the field, its value and a remedy. The command line prints them as one line; any
other exception is a bug in jaxrl or in user code, and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class JaxrlError(Exception):
    """Base of all errors that jaxrl raises on purpose."""


class InvalidValue(JaxrlError, ValueError):
    """An invalid value."""


class InvalidType(JaxrlError, TypeError):
    """An object of the wrong type."""


class Unable(JaxrlError, RuntimeError):
    """A valid request that failed, such as a download, or a run in which all seeds diverged."""


def is_missing(module: str, error: ModuleNotFoundError) -> bool:
    """Whether `module` or a parent package is missing, rather than a module that it imports."""
    return error.name is not None and f"{module}.".startswith(f"{error.name}.")


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """A hint that names the closest matches of `word`, or else `otherwise`, or all known names."""
    known = list(known)
    near = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return otherwise or f"use {' or '.join(known)}"
