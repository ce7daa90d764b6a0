"""Compiles programs in half of the time, where it does not matter how fast they run.

XLA generates the code of a fusion by one of two ways. The older one takes much less time, and its
switch is an entry in a dictionary of options, which jax sets for a process but not for a program.
"""

from collections.abc import Callable
from typing import Any

SWITCH = "xla_cpu_disable_new_fusion_emitters"
FLAG = f"--xla_backend_extra_options={SWITCH}=true"
"""What a process of its own needs in `XLA_FLAGS`."""


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer."""
    tag = number << 3 | 2
    words = [tag] if tag < 128 else [tag & 127 | 128, tag >> 7]
    return bytes([*words, len(content)]) + content


_ENTRY = _field(1, SWITCH.encode()) + _field(2, b"true")
_BUILD_OPTIONS, _DEBUG_OPTIONS, _EXTRA_OPTIONS = 3, 3, 500  # numbers of fields
_APPENDED = _field(_BUILD_OPTIONS, _field(_DEBUG_OPTIONS, _field(_EXTRA_OPTIONS, _ENTRY)))


def quick(compile_options: Callable[..., Any]) -> Callable[..., Any]:
    """Replaces a function that returns `CompileOptions`: these have the switch set."""

    def with_the_switch(*args: Any, **kwargs: Any) -> Any:
        options = compile_options(*args, **kwargs)
        return type(options).ParseFromString(options.SerializeAsString() + _APPENDED)

    return with_the_switch
