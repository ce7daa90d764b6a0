"""Finite-difference policy gradient (Peters and Schaal, "Reinforcement learning of motor skills
with policy gradients", 2008, section 3.1).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl.agent import Update
from jaxrl.agents.bases.learning import GradientAgent
from jaxrl.agents.bases.policy import PolicyLearner
from jaxrl.agents.bases.population import PopulationAgent
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.optimizers import ascend
from jaxrl.schedules import Scheduled, at
from jaxrl.solvers import conjugate_gradient
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, Stream, stream


class FiniteDifferenceState(struct.PyTreeNode):
    """Attributes:
    params: parameters of the policy.
    candidates: perturbed parameters, leaves `[population_size, ...]`.
    optimizer: the optimiser's state.
    """

    params: PyTree
    candidates: PyTree
    optimizer: optax.OptState


class FiniteDifference(PopulationAgent, PolicyLearner, GradientAgent):
    """Finite differences: the returns of perturbed policies, regressed on the perturbations."""

    learning_rate: Scheduled = 0.02
    max_grad_norm: Scalar | None = None
    perturbation: Scheduled = hyper(
        0.1,
        low=0.0,
        open_low=True,
        doc="Standard deviation of the perturbations of each parameter, which come in pairs of "
        "opposite sign.",
    )
    cg_iterations: int = hyper(
        32,
        static=True,
        doc="Steps of conjugate gradient for the regression; with 1, the gradient is a multiple of "
        "the mean of perturbation times return, as in evolution strategies.",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.population_size % 2:
            raise InvalidValue(
                f"population_size is {self.population_size}: perturbations come in pairs, so it "
                "must be even"
            )

    def init(self, key: Key) -> FiniteDifferenceState:
        start: Any = super().init(key)
        candidates = self.perturbed(start.params, stream(key, Stream.SAMPLE), Clock.start())
        return FiniteDifferenceState(start.params, candidates, start.optimizer)

    def perturbed(self, params: PyTree, key: Key, clock: Clock) -> PyTree:
        """Candidates around `params`, in pairs of opposite perturbations."""
        vector, restore = ravel_pytree(params)
        noise = jax.random.normal(key, (self.population_size // 2, vector.size), vector.dtype)
        noise = at(self.perturbation, clock) * jnp.concatenate([noise, -noise])
        return jax.vmap(restore)(vector[None] + noise)

    def update(
        self, state: FiniteDifferenceState, returns: Array, key: Key, clock: Clock
    ) -> Update:
        """A step along the gradient, then new perturbations."""
        gradient, found = self.gradient(state, returns)
        _, metrics = self.gains(returns)
        transform = self.transform(clock)
        params, optimizer = ascend(transform, gradient, state.params, state.optimizer)
        candidates = self.perturbed(params, stream(key, Stream.SAMPLE), clock)
        new = FiniteDifferenceState(params, candidates, optimizer)
        return Update(new, metrics | {"cg_residual": found})

    def gradient(self, state: FiniteDifferenceState, returns: Array) -> tuple[PyTree, Array]:
        """g = (D^T D)^-1 D^T (J - mean(J)), and the relative residual of its solution.

        D are the perturbations, one row for each candidate, and J the candidates' mean returns. If
        there are more parameters than pairs, it is the shortest of the least-squares solutions.
        """
        rows = jax.vmap(lambda x: ravel_pytree(x)[0])(state.candidates)
        vector, restore = ravel_pytree(state.params)
        gain = mean(returns, axis=1)
        rows, gain = rows - vector[None], gain - mean(gain)
        unit = jnp.max(jnp.abs(rows))
        unit = jnp.where(unit > 0, unit, 1.0)
        rows = rows / unit

        def product(v: Array) -> Array:
            return mean(rows * jnp.matmul(rows, v, precision="highest")[:, None], axis=0)

        solution = conjugate_gradient(
            product, mean(rows * gain[:, None], axis=0), self.cg_iterations, tolerance=1e-6
        )
        return restore(solution.x / unit), solution.relative_residual
