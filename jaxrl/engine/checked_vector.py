"""Host environments with checked results and bounded actions."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl.environment import HostEnvironment, HostStep, HostVector
from jaxrl.errors import Unable
from jaxrl.types import ActionSpace, Box, EnvSpec, Mixed, PyTree

ROWS = {"reward": "f", "terminated": "b", "truncated": "b", "valid": "b"}
"""Fields of a `HostStep` with a number for each copy, and the kinds of their dtypes."""
KINDS = {"f": "float32", "b": "bool"}


class EnvironmentFault(Unable):
    """A host environment has raised an error, returned invalid values, or not returned."""


class Checked:
    """A `HostVector` whose results are checked against the spec, and its actions bounded.

    Raises:
      EnvironmentFault: it raised an error, or returned NaN or another shape or dtype.
    """

    def __init__(self, vector: HostVector, spec: EnvSpec, num_envs: int, name: str):
        self.vector, self.spec, self.num_envs, self.name = vector, spec, num_envs, name
        self.busy_since: float | None = None
        leaves, structure = jax.tree.flatten(spec.observation)
        self.structure: Any = structure
        self.bound = bounding(spec.action)
        self.wanted = [((num_envs, *x.shape), x.dtype, x.dtype.kind == "f") for x in leaves]

    @classmethod
    def start(cls, host: HostEnvironment, num_envs: int) -> "Checked":
        """Starts copies of a host environment."""
        try:
            vector = host.vector(num_envs)
        except Exception as error:
            raise EnvironmentFault(f"{host.name} could not be started: {_said(error)}") from error
        return cls(vector, host.spec, num_envs, host.name)

    def reset(self, seeds: np.ndarray | None = None) -> PyTree:
        obs = self._call("reset", seeds)
        self._check_obs("reset", obs)
        return obs

    def step(self, action: PyTree) -> HostStep:
        step = self._call("step", self.bound(action))
        if not isinstance(step, HostStep):
            raise EnvironmentFault(
                f"step of {self.name} returned a {type(step).__name__}, but must return a HostStep"
            )
        self._check_obs("step", step.next_obs)
        if step.obs is not step.next_obs:
            self._check_obs("step", step.obs)
        for name, kind in ROWS.items():
            x = getattr(step, name)
            if x is None and name == "valid":
                continue
            if getattr(x, "shape", None) != (self.num_envs,) or x.dtype.kind != kind:
                raise EnvironmentFault(
                    f"step of {self.name} returned {name} of {getattr(x, 'dtype', type(x))}"
                    f"{list(np.shape(x))}, but must return {KINDS[kind]}[{self.num_envs}]"
                )
        if not np.isfinite(step.reward).all():
            copies = np.flatnonzero(~np.isfinite(step.reward)).tolist()
            raise EnvironmentFault(
                f"step of {self.name} returned a reward of NaN or inf in copies {copies}"
            )
        return step

    def check_hanging(self, timeout: float) -> None:
        """Raises EnvironmentFault if the environment has not returned for `timeout` seconds."""
        since = self.busy_since
        if since is not None and time.monotonic() - since > timeout:
            raise EnvironmentFault(
                f"{self.name} has not returned for {timeout:g} s: raise env_timeout if it is just "
                "slow"
            )

    def close(self) -> None:
        self.vector.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        self.busy_since = time.monotonic()
        try:
            return getattr(self.vector, method)(*arguments)
        except BaseException as error:  # SystemExit, too, which would only end the thread
            raise EnvironmentFault(f"{self.name} has failed in {method}: {_said(error)}") from error
        finally:
            self.busy_since = None

    def _check_obs(self, method: str, obs: PyTree) -> None:
        leaves, structure = jax.tree.flatten(obs)
        if structure != self.structure:
            raise EnvironmentFault(f"{method} of {self.name} returned another structure")
        for x, (shape, dtype, is_float) in zip(leaves, self.wanted, strict=True):
            if x.shape != shape or x.dtype != dtype:
                raise EnvironmentFault(
                    f"{method} of {self.name} returned observations of {x.dtype}{list(x.shape)}, "
                    f"but its spec has {dtype}{list(shape)}"
                )
            if is_float and np.isnan(x.sum()) and np.isnan(x).any():  # the sum is fast
                copies = np.unique(np.argwhere(np.isnan(x))[:, 0]).tolist()
                raise EnvironmentFault(
                    f"{method} of {self.name} returned an observation with NaN in copies {copies}"
                )


def _said(error: BaseException) -> str:
    """An error, with the line of code that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def bounding(space: ActionSpace) -> Callable[[PyTree], PyTree]:
    """A function that clips the continuous parts of actions `[N, ...]` to their bounds.

    NaN becomes 0: a member that has diverged must not break the simulator of the others.
    """
    if isinstance(space, Box):
        low, high = space.bounds()
        return lambda action: np.clip(np.nan_to_num(action), low, high)
    if isinstance(space, Mixed):
        parts = [bounding(part) for part in space.spaces]
        return lambda action: tuple(f(x) for f, x in zip(parts, action, strict=True))
    return lambda action: action
