"""The members of a run, vmapped in one program: points of a sweep, times seeds."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.agent import Agent
from jaxrl.devices import hosts
from jaxrl.devices.placement import SHARED, Placement
from jaxrl.engine import sizes
from jaxrl.engine.split import shards
from jaxrl.engine.sweep import stacked, variants
from jaxrl.engine.training import Training
from jaxrl.environment import Hosted
from jaxrl.errors import InvalidValue
from jaxrl.trees import strong
from jaxrl.types import Key, PyTree, Stream, stream
from jaxrl.xla.precision import in_float32
from jaxrl.xla.transfers import transfers_allowed


@dataclasses.dataclass(frozen=True)
class Members:
    """The members of a run.

    Attributes:
      training: the shared setup; with `points`, the agent has leaves `[M, ...]`.
      key: a key, or keys `[M]`.
      base: the agent without the changes of any point.
      seeds: seeds of the keys, not repeated for each point.
      points: points of the sweep, in order; empty without a sweep.
      devices: how many devices to use at most: members are spread over them, and what is left
        shares the environments of each member. None for one for each member, as far as there are.
    """

    training: Training
    key: Key
    base: Agent
    seeds: tuple[int, ...]
    points: tuple[Mapping[str, Any], ...] = ()
    devices: int | None = None

    @classmethod
    @transfers_allowed
    @in_float32
    def of(
        cls,
        training: Training,
        key: Key,
        points: Sequence[Mapping[str, Any]] | None = None,
        devices: int | None = None,
    ) -> Self:
        """Combines every point with every key; the keys vary fastest.

        Raises:
          ValueError: a point has a field that vmap cannot batch or an invalid value, the seeds do
            not fit into memory, or there are fewer devices.
        """
        sizes.check(training, num_seeds=key.size)
        base, seeds = training.agent, tuple(seeds_of(key))
        if not points:
            return cls(training, key, base, seeds, devices=devices).checked()
        agents = [
            strong(agent.bind(training.envs.spec)) for agent in variants(training.agent, points)
        ]
        num_seeds = 1 if key.ndim == 0 else key.shape[0]
        agent = jax.tree.map(lambda x: jnp.repeat(x, num_seeds, axis=0), stacked(agents))
        keys = jnp.tile(key.reshape(num_seeds), len(points))
        training = training.replace(agent=agent)
        return cls(training, keys, base, seeds, tuple(points), devices).checked()

    def checked(self) -> Self:
        """The same; raises ValueError if there are fewer than `devices`."""
        if self.devices is not None or hosts.count() > 1:  # else jax need not start yet
            _ = self.placement
        return self

    def __len__(self) -> int:
        return 1 if self.key.ndim == 0 else self.key.shape[0]

    @functools.cached_property
    def placement(self) -> Placement:
        """The devices that train them. Raises ValueError if there are fewer than `devices`."""
        env = self.training.envs.env
        if isinstance(env, Hosted):
            return Placement.of_host_environment(len(self), self.devices, env.host.name)
        placement = Placement.of(len(self), self.devices)
        if jax.config.jax_disable_jit:
            return placement
        processes, asked_for = hosts.count(), self.devices
        if processes > 1 and asked_for is None and len(self) == 1:
            asked_for = placement.available
        number, why = shards(
            self.training, placement.member_devices, placement.available, asked_for
        )
        if len(self) == 1 and number < processes:
            raise InvalidValue(
                f"there are {processes} processes, but {why}: train at least {processes} seeds, or "
                "use one process"
            )
        return placement.shared_by(number, self.training.envs.num_envs, why)

    @property
    def batched(self) -> Any:
        """Which parts of `training` have an axis of members, as specs of the placement."""
        nothing = dict.fromkeys(("envs", "eval_envs", "data", "agent_state"), SHARED)
        batched = self.placement.batched
        return self.training.replace(agent=batched if self.points else SHARED, **nothing)

    def vmap(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
        """Vmaps `function(training, *arguments)` over members; unchanged for a single key."""
        if self.key.ndim == 0:
            return function
        training = self.training
        axes = None  # only the agent's leaves are batched, and only with points
        if self.points:
            nothing = dict.fromkeys(("envs", "eval_envs", "data", "agent_state"))
            axes = training.replace(agent=0, **nothing)
        return jax.vmap(function, (axes, *in_axes))

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Labels of the members: seed and point."""
        return [{"seed": seed, **point} for point in self.points or ({},) for seed in self.seeds]

    def keys_of_stream(self, name: Stream) -> Key:
        """The members' keys of a named stream, shaped like `key`."""
        of_one = functools.partial(stream, name=name)
        return of_one(self.key) if self.key.ndim == 0 else jax.vmap(of_one)(self.key)

    def alone(self, index: int, state: PyTree) -> tuple[Training, PyTree]:
        """The training setup and state of one member, without the leading axis."""
        if self.key.ndim == 0:
            return self.training, state
        training = self.training
        if self.points:
            agent = jax.tree.map(lambda x: x[index], training.agent)
            training = training.replace(agent=agent)
        return training, jax.tree.map(lambda x: x[index], state)


def seeds_of(key: Key) -> list[int]:
    """The seed of each key, its key data as one integer: `s` for `jax.random.key(s)`."""
    words = np.asarray(jax.random.key_data(key))
    rows = words.reshape(-1, words.shape[-1]).tolist()
    return [sum(word << 32 * i for i, word in enumerate(reversed(row))) for row in rows]


def keys_of(seeds: Sequence[int], key_type: str | None, *, vmapped: bool) -> Key:
    """The keys of these seeds, `[seeds]`, or the single key of a single seed unless `vmapped`.

    `key_type` is the random number generator; None for jax's default.
    """
    numbers = jnp.asarray(seeds, jnp.uint32)
    keys = jax.vmap(lambda seed: jax.random.key(seed, impl=key_type))(numbers)
    return keys if vmapped else keys[0]
