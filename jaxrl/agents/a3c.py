"""A3C as a pure function: workers with stale copies of the parameters, in a fixed or random order.

Mnih et al., "Asynchronous methods for deep reinforcement learning", 2016, algorithm S3.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import OnPolicy, Update
from jaxrl.agents.a2c import A2C
from jaxrl.agents.bases.learning import TrainState
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Trajectory
from jaxrl.validation import check_whole

Order = Literal["fixed", "random"]


class A3CState(struct.PyTreeNode):
    """Attributes:
    params: the shared parameters.
    optimizer: state of the shared optimiser.
    copies: the workers' copies of the parameters, leaves `[W, ...]`.
    age: `int32[W]`, updates of the shared parameters since each copy was made.
    """

    params: PyTree
    optimizer: optax.OptState
    copies: PyTree
    age: Array


class A3C(A2C):
    """A3C: workers act with stale copies of shared parameters and update these in turn."""

    num_workers: int = hyper(
        16, static=True, doc="Workers, W; each has an equal part of num_envs and its own copy."
    )
    order: Order = hyper(
        "fixed", static=True, doc="Order of the workers' updates: by number, or random each time."
    )
    staleness: int = hyper(
        1,
        low=0,
        static=True,
        doc="Iterations in which a worker acts and takes gradients with one copy; 1 in the paper. "
        "With 0, all act with the shared parameters, and each gradient is at their latest value.",
    )

    eval_modes = ("greedy",)  # exploring copies of the environment belong to workers

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps, layout="env")

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        check_whole("num_workers", self.num_workers)
        workers = f"num_workers is {self.num_workers}"
        if self.num_envs % self.num_workers:
            raise InvalidValue(f"{workers}, which does not divide num_envs = {self.num_envs}")
        if self.normalize_advantages and self.num_envs * self.num_steps == self.num_workers:
            raise InvalidValue(
                f"{workers}: standardising one step of each always gives 0. Collect more steps or "
                "set normalize_advantages=False"
            )

    def check_shards(self, number: int) -> None:
        raise InvalidValue(f"{type(self).__name__} keeps the environments of a member together")

    def init(self, key: Key) -> A3CState:
        start = super().init(key)
        copies, age = self._copied(start.params), jnp.zeros(self.num_workers, jnp.int32)
        return A3CState(start.params, start.optimizer, copies, age)

    def _copied(self, params: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.num_workers, *x.shape)), params)

    def _by_worker(self, tree: PyTree, axis: int) -> PyTree:
        """Splits the axis of environments into `[W, N / W]`, and moves W to the front."""

        def split(x: Array) -> Array:
            shape = (*x.shape[:axis], self.num_workers, -1, *x.shape[axis + 1 :])
            return jnp.moveaxis(x.reshape(shape), axis, 0)

        return jax.tree.map(split, tree)

    def acting_policy(
        self, state: Any, carry: PyTree, obs: PyTree, *, explore: bool
    ) -> tuple[Distribution, PyTree]:
        """Each worker's policy in its environments; without `explore`, the shared one."""
        acting_policy = super().acting_policy
        if not explore:
            return acting_policy(state, carry, obs, explore=False)
        each = jax.vmap(lambda own, *seen: acting_policy(TrainState(own, ()), *seen, explore=True))
        found = each(state.copies, *self._by_worker((carry, obs), axis=0))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    def prepare(self, state: A3CState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Each worker's targets by its copy, leaves `[W, ...]`; raw steps with `staleness` 0."""
        steps, first = self._by_worker((trajectory.steps, trajectory.first), axis=1)
        workers = Trajectory(steps, first, self._by_worker(trajectory.carry, axis=0))
        if self.staleness == 0:
            return workers
        return jax.vmap(lambda own, x: self._targets(own, x, clock))(state.copies, workers)

    def _targets(self, own: PyTree, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """A worker's batch as the loss gets it: single steps, or sequences with a core."""
        batch = super().prepare(TrainState(own, ()), trajectory, clock)
        if self.layout == "env":
            return batch
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

    def report(self, state: A3CState, batch: Trajectory, clock: Clock) -> Metrics:
        return {} if self.staleness == 0 else super().report(state, batch, clock)

    def update(self, state: Any, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """A gradient step by each worker in turn, which then copies the shared parameters."""
        fresh = self.staleness == 0

        def turn(state: A3CState, worker: Array) -> tuple[A3CState, Metrics]:
            own, part = jax.tree.map(lambda x: x[worker], (state.copies, batch))
            own = state.params if fresh else own
            part = self._targets(own, part, clock) if fresh else part
            gradient, metrics = jax.grad(self.loss, has_aux=True)(own, state, part, clock)
            step = self.transform(clock).update
            updates, optimizer = step(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
            metrics = metrics | {"staleness": 0 if fresh else state.age[worker]}
            now = (clock.iteration + 1) % max(self.staleness, 1) == 0  # copies the parameters
            copy = jax.tree.map(lambda x, y: jnp.where(now, x, y), params, own)
            copies = jax.tree.map(lambda x, y: x.at[worker].set(y), state.copies, copy)
            age = (state.age + 1).at[worker].multiply(1 - now)
            return A3CState(params, optimizer, copies, age), metrics

        turns = jnp.arange(self.num_workers)
        turns = jax.random.permutation(key, turns) if self.order == "random" else turns
        state, metrics = jax.lax.scan(turn, state, turns)
        if fresh:
            state = state.replace(copies=self._copied(state.params), age=0 * state.age)
        return Update(state, {name: mean(x) for name, x in metrics.items()})
