"""Environments for jaxrl, by id: `make("gymnax/CartPole-v1")`. jax is imported lazily."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxrl_envs.objects import adapt
from jaxrl_envs.registry import list_ids, make

if TYPE_CHECKING:
    from jaxrl_envs.conformance import ConformanceError, check

__all__ = ["ConformanceError", "adapt", "check", "list_ids", "make"]


def __getattr__(name: str) -> Any:
    if name in ("ConformanceError", "check"):
        return getattr(importlib.import_module("jaxrl_envs.conformance"), name)
    raise AttributeError(f"module 'jaxrl_envs' has no attribute {name!r}")
