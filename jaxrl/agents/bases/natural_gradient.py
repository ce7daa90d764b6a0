"""Base class of natural-gradient methods: the direction F^-1 g, and a separate critic."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxrl.agent import Agent, Update
from jaxrl.agents.bases.actor_critic import ActorCriticAgent, Sample
from jaxrl.agents.bases.critic import CriticAgent
from jaxrl.agents.bases.learning import Networks, TrainState
from jaxrl.devices.shards import num_shards
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import surrogate_loss
from jaxrl.minibatches import minibatch
from jaxrl.optimizers import value_and_gradient
from jaxrl.solvers import Solution, conjugate_gradient, gauss_newton_product
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Scalar, Trajectory

Fisher = Literal["exact", "empirical"]


class FisherAgent(Agent):
    """Solves (F + damping I) x = g by conjugate gradient, from products with F alone."""

    damping: Scalar = hyper(0.1, low=0.0, doc="Damping added to the diagonal of the Fisher matrix.")
    cg_iterations: int = hyper(10, static=True, doc="Steps of conjugate gradient.")
    cg_tolerance: Scalar = hyper(
        1e-6, low=0.0, doc="Relative residual at which conjugate gradient stops."
    )

    def solve(
        self, product: Callable[[PyTree], PyTree], gradient: PyTree
    ) -> tuple[Solution, Array]:
        """The solution x, and x^T (F + damping I) x.

        Args:
          product: v -> F v.
          gradient: g.

        Source: Schulman et al., "Trust region policy optimization", 2015, appendix C.
        """

        def damped(v):
            return jax.tree.map(lambda f, x: f + self.damping * x, product(v), v)

        solution = conjugate_gradient(
            damped, gradient, self.cg_iterations, tolerance=self.cg_tolerance
        )
        x, residual, b = (ravel_pytree(t)[0] for t in (solution.x, solution.residual, gradient))
        return solution, jnp.dot(x, b - residual, precision=jax.lax.Precision.HIGHEST)


class NaturalGradientAgent(CriticAgent, ActorCriticAgent, FisherAgent):
    """One policy step per iteration on the whole rollout, then the critic; see NPG and TRPO."""

    num_steps: int = 256
    gae_lambda: Scalar = 0.97
    fisher: Fisher = hyper(
        "exact",
        static=True,
        doc="Fisher matrix: exact for the policy's distribution, or from the actions taken "
        "(empirical).",
    )
    fisher_stride: int = hyper(
        1,
        static=True,
        doc="Use every n-th row for the Fisher matrix.",
    )
    critic_minibatches: int = 8

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        rows, what = self._rows
        if self.fisher_stride > rows:
            raise InvalidValue(f"fisher_stride is {self.fisher_stride}, more than {what} = {rows}")

    def init(self, key: Key) -> TrainState:
        params = self.init_params(key)
        return TrainState(params, self.init_critic(params.critic))

    def update(self, state: TrainState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """One policy step on the whole batch, then the critic's epochs."""
        actor, critic = state.params.actor, state.params.critic
        sample: Sample = batch.steps
        sample = sample.replace(advantage=self.advantages(sample))
        actor, metrics = self.improve(actor, batch.replace(steps=sample), clock)
        critic, optimizer, error = self.fit_critic(critic, state.optimizer, batch, key, clock)
        state = TrainState(Networks(actor, critic), optimizer)
        return Update(state, metrics | {"value_loss": error})

    @abstractmethod
    def improve(self, actor: PyTree, batch: Trajectory, clock: Clock) -> tuple[PyTree, Metrics]:
        """The policy step: new parameters, and metrics."""

    def surrogate(self, actor: PyTree, batch: Trajectory) -> Array:
        """L(theta) = mean(pi(a | s) / pi_old(a | s) A), to be maximised."""
        sample: Sample = batch.steps
        log_prob = self.policy(actor, batch).log_prob(sample.action)
        return -surrogate_loss(log_prob - sample.log_prob, sample.advantage)

    def surrogate_and_gradient(self, actor: PyTree, batch: Trajectory) -> tuple[Array, PyTree]:
        """L(theta) and its gradient."""
        (value, _), gradient = value_and_gradient(lambda p: (self.surrogate(p, batch), ()), actor)
        return value, gradient

    def natural_gradient(
        self, actor: PyTree, gradient: PyTree, batch: Trajectory
    ) -> tuple[Solution, Array]:
        """`solve` with the Fisher matrix of the policy, averaged over the rows of the batch."""
        part = self._part_for_fisher(batch)
        row_ndim = batch.first.ndim
        with jax.default_matmul_precision("highest"):  # also for the linearisation
            if self.fisher == "exact":
                metric = self.policy(actor, part).fisher
                product = gauss_newton_product(
                    lambda p: self.policy(p, part).parameters, actor, metric, row_ndim
                )
            else:
                product = gauss_newton_product(
                    lambda p: self.policy(p, part).log_prob(part.steps.action),
                    actor,
                    lambda tangent: tangent,
                    row_ndim,
                )
            return self.solve(product, gradient)

    def _part_for_fisher(self, batch: Trajectory) -> Trajectory:
        """Every `fisher_stride`-th row.

        For single steps, copies are rotated by the time step, so that all of them are included.
        Devices that share the environments each take every n-th of their own rows.
        """
        if self.fisher_stride == 1:
            return batch
        rows = np.arange(0, self._rows[0], self.fisher_stride)
        if self.core == "none":
            num_envs = self.num_envs // num_shards()
            step, copy = np.divmod(rows, num_envs)
            rows = step * num_envs + (copy + step) % num_envs
        return minibatch(batch, jnp.asarray(rows), batch.first.ndim - 1)


def scale_to_radius(kl_radius: Scalar, curvature: Array) -> Array:
    """The step size s at which the KL divergence is `kl_radius`, to second order.

    KL(theta, theta + s x) = s^2 x^T F x / 2; 0 unless `curvature`, x^T F x, is positive and finite.
    """
    scale = jnp.sqrt(2.0 * kl_radius / curvature)
    return jnp.where((curvature > 0) & jnp.isfinite(scale), scale, 0.0)
