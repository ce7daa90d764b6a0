"""Converts values of settings to and from text, for command line and files. No jax import."""

import contextlib
import dataclasses
import json
import math
from typing import Any

from jaxrl.errors import InvalidValue


@dataclasses.dataclass(frozen=True)
class ScheduleText:
    """A parsed schedule such as `linear:2.5e-4:0`, which `build` turns into a `Schedule`."""

    kind: str
    numbers: tuple[float, ...]

    def __str__(self) -> str:
        return ":".join([self.kind, *map(str, self.numbers)])

    def build(self) -> Any:
        from jaxrl import schedules

        return getattr(schedules, self.kind.capitalize())(*self.numbers)


SCHEDULES = {"linear": (1, 3), "exponential": (2, 2), "cosine": (1, 2)}
"""Minimum and maximum count of numbers for each kind of schedule."""


def parse(kind: str, text: str) -> Any:
    """Parses the value of a flag of type `kind`.

    Raises:
      ValueError: the text is invalid; the message says what is expected.
    """
    match kind:
        case _ if kind.endswith("| None") and text.lower() == "none":
            return None
        case "int" | "int | None":
            return whole_number(text)
        case "Scalar" | "Scalar | None":
            return finite_number(text)
        case "Scheduled" | "Scheduled | None":
            return _schedule(text) if ":" in text else finite_number(text)
        case "tuple[int, ...]" | "tuple[int, ...] | None":
            return tuple(whole_number(part) for part in text.split(","))
    return text


def plain_value(text: str) -> Any:
    """Parses a value of unknown type: a number, true, false, or else text.

    Text in double quotes, as in JSON, is always text.

    Raises:
      ValueError: it is a number that is not finite.
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        float(text)
    except ValueError:
        return _unquoted(text)
    number = finite_number(text)
    return int(text) if text.lstrip("+-").isdigit() else number


def text_of_plain(value: bool | float | str) -> str:
    """The inverse of `plain_value`."""
    if not isinstance(value, str):
        return str(value).lower()
    try:
        same = value != "" and plain_value(value) == value
    except ValueError:
        same = False
    return value if same else json.dumps(value)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return text


def whole_number(text: str) -> int:
    """Parses an integer, which may also be written 500_000 or 5e5."""
    try:
        number: float = int(text)
    except ValueError:
        number = finite_number(text)
    if number != int(number):
        raise InvalidValue(f"{text!r} is not a whole number")
    if abs(number) >= 2**63:
        raise InvalidValue(f"{text!r} is too large")
    return int(number)


def finite_number(text: str) -> float:
    """Parses a float that is neither NaN nor infinite."""
    try:
        number = float(text)
    except ValueError:
        raise InvalidValue(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise InvalidValue(f"{text!r} is not a finite number")
    return number


def _schedule(text: str) -> ScheduleText:
    kind, *numbers = text.split(":")
    if kind not in SCHEDULES:
        raise InvalidValue(f"{text!r} is not a schedule: write a number, or linear:START:END")
    least, most = SCHEDULES[kind]
    if not least <= len(numbers) <= most:
        takes = f"{least} to {most}" if least < most else f"{least}"
        raise InvalidValue(f"{text!r}: {kind} takes {takes} numbers, {kind}:START:END")
    return ScheduleText(kind, tuple(finite_number(n) for n in numbers))


SCHEDULE_FIELDS = ("start", "end", "share")


def value_text(name: str, value: Any) -> str:
    """A value of config.json in the syntax of the command line."""
    if isinstance(value, dict):
        return _schedule_text(name, value)
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _schedule_text(name: str, value: dict[str, Any]) -> str:
    """Converts a schedule of config.json, `{"linear": {"start": 1, "end": 0}}`, to `linear:1:0`."""
    example = '"linear:1e-3:0"'
    if len(value) != 1 or next(iter(value)) not in SCHEDULES:
        raise InvalidValue(f"{name} is not a schedule: write, for example, {example}")
    ((kind, numbers),) = value.items()
    fields = SCHEDULE_FIELDS[: SCHEDULES[kind][1]]
    if not isinstance(numbers, dict) or list(numbers) != list(fields[: len(numbers)]):
        raise InvalidValue(
            f"{name}: {kind} takes {', '.join(fields)}, in this order, for example {example}"
        )
    return ":".join([kind, *map(str, numbers.values())])
