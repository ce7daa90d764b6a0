"""Compiles programs in half of the time, where it does not matter how fast they run.

XLA generates the code of a fusion by one of two ways. The older one takes much less time, and its
switch is an entry in a dictionary of options, which jax sets for a process but not for a program.
"""

import os
from collections.abc import Callable
from typing import Any

SWITCH = "xla_cpu_disable_new_fusion_emitters"


def environment() -> dict[str, str]:
    """Environment variables with which a process of its own compiles quickly."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_extra_options={SWITCH}=true"
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": flags.strip()}


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer."""
    tag = number << 3 | 2
    words = [tag] if tag < 128 else [tag & 127 | 128, tag >> 7]
    return bytes([*words, len(content)]) + content


_ENTRY = _field(1, SWITCH.encode()) + _field(2, b"true")
_BUILD_OPTIONS, _DEBUG_OPTIONS, _EXTRA_OPTIONS = 3, 3, 500  # numbers of fields
_APPENDED = _field(_BUILD_OPTIONS, _field(_DEBUG_OPTIONS, _field(_EXTRA_OPTIONS, _ENTRY)))


def with_switch(compile_options: Callable[..., Any]) -> Callable[..., Any]:
    """Replaces a function that returns `CompileOptions`: these have the switch set."""

    def call(*args: Any, **kwargs: Any) -> Any:
        options = compile_options(*args, **kwargs)
        return type(options).ParseFromString(options.SerializeAsString() + _APPENDED)

    return call
