"""Environments for jaxrl, by id: `make("gymnax/CartPole-v1")`."""

from jaxrl_envs.conformance import ConformanceError, check
from jaxrl_envs.registry import list_ids, make

__all__ = ["ConformanceError", "check", "list_ids", "make"]
