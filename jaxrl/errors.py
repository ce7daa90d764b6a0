"""What jaxrl raises on purpose. Imports nothing.

Each message names what is wrong, the value found and the remedy. The command line prints these as
one line; any other exception is a defect of jaxrl or of your own code, and keeps its traceback.
"""


class JaxrlError(Exception):
    """Base of all errors that jaxrl raises on purpose."""


class InvalidValue(JaxrlError, ValueError):
    """A value that does not fit."""


class InvalidType(JaxrlError, TypeError):
    """An object of the wrong kind."""


class Unable(JaxrlError, RuntimeError):
    """What was asked for cannot be done: a download fails, every seed diverges."""
