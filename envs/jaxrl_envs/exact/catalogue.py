"""Builds exact environments by name."""

import importlib
import inspect
from typing import Any

from jaxrl.errors import InvalidValue
from jaxrl_envs.library import making
from jaxrl_envs.parameters import fitted


def make(name: str, /, **params: Any) -> Any:
    """Builds an environment of `jaxrl_envs.exact`, named like its module with hyphens.

    Raises:
      ValueError: an unknown parameter or an invalid value.
    """
    module = importlib.import_module(f"jaxrl_envs.exact.{name.replace('-', '_')}")
    known = inspect.signature(module.make).parameters
    for field in params:
        if field not in known:
            raise InvalidValue(f"{name} has no parameter {field!r}; it has: {', '.join(known)}")
    params = fitted(module.make, params, name)
    with making(name, params):
        return module.make(**params)
