"""What natural-gradient methods share: the direction F^-1 g, and a critic fitted by itself."""

from abc import abstractmethod
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.actor_critic import ActorCriticAgent, Sample, check_advantages
from jaxrl.agents.bases.critic import check_critic, finite_adam, fit_critic, join, split
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_range
from jaxrl.losses import mean, standardize
from jaxrl.minibatches import minibatch
from jaxrl.schedules import Scheduled
from jaxrl.solvers import Solution, conjugate_gradient, gauss_newton_product
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Scalar, Trajectory, static
from jaxrl.validation import check_whole

Fisher = Literal["exact", "empirical"]


class NaturalGradientState(struct.PyTreeNode):
    """Attributes:
    params: of policy and value.
    optimizer: the critic's.
    """

    params: PyTree
    optimizer: optax.OptState


class NaturalGradientAgent(ActorCriticAgent):
    """One step of the policy an iteration on all its data, then the critic; see NPG and TRPO."""

    num_envs: int = static(default=8)
    """Copies of the environment."""
    num_steps: int = static(default=256)
    """Steps of each copy between updates."""
    gae_lambda: Scalar = 0.97
    """Lambda of generalised advantage estimation, in [0, 1]."""
    normalize_advantages: bool = static(default=True)
    """Standardise the advantages of an iteration."""
    fisher: Fisher = static(default="exact")
    """Fisher matrix: of the policy's own distribution, or of the actions taken (outer products)."""
    fisher_stride: int = static(default=1)
    """Build the Fisher matrix from every n-th row: a fixed share, 1/n, of the data."""
    damping: Scalar = 0.1
    """Added to the diagonal of the Fisher matrix."""
    cg_iterations: int = static(default=10)
    """Steps of conjugate gradient."""
    cg_tolerance: Scalar = 1e-6
    """Relative residual at which conjugate gradient stops."""
    critic_learning_rate: Scheduled = 1e-3
    """Adam's step size for the critic."""
    critic_epochs: int = static(default=10)
    """Passes of the critic over the collected steps."""
    critic_minibatches: int = static(default=8)
    """Parts into which each of these passes is divided, one gradient step each."""

    @property
    def plan(self) -> OnPolicy:
        flat = self.core == "none"
        return OnPolicy(self.num_envs, self.num_steps, layout="flat" if flat else "env")

    def bind(self, spec: EnvSpec) -> Self:
        check_range(self, "damping")
        check_range(self, "cg_tolerance")
        for field in ("fisher_stride", "cg_iterations"):
            check_whole(field, getattr(self, field))
        if self.fisher not in ("exact", "empirical"):
            raise InvalidValue(f"fisher is {self.fisher!r}: use 'exact' or 'empirical'")
        check_advantages(self)
        rows, what = self._rows
        check_critic(self, rows, what)
        if self.fisher_stride > rows:
            raise InvalidValue(f"fisher_stride is {self.fisher_stride}, more than {what} = {rows}")
        return super().bind(spec)

    @property
    def _rows(self) -> tuple[int, str]:
        """What can be divided: single steps, or sequences of a recurrent policy."""
        if self.core == "none":
            return self.num_envs * self.num_steps, "num_envs * num_steps"
        return self.num_envs, "num_envs"

    def init(self, key: Key) -> NaturalGradientState:
        params = self.init_params(key)
        adam = finite_adam(self.critic_learning_rate, Clock.start())
        return NaturalGradientState(params, adam.init(split(params)[1]))

    def update(
        self, state: NaturalGradientState, batch: Trajectory, key: Key, clock: Clock
    ) -> tuple[NaturalGradientState, Metrics]:
        """A step of the policy on the whole batch, then the critic's passes over it."""
        actor, critic = split(state.params)
        sample: Sample = batch.steps
        if self.normalize_advantages:
            sample = sample.replace(advantage=standardize(sample.advantage))
        actor, metrics = self.improve(actor, batch.replace(steps=sample), clock)
        critic, optimizer, error = fit_critic(self, critic, state.optimizer, batch, key, clock)
        return NaturalGradientState(join(actor, critic), optimizer), metrics | {"value_loss": error}

    @abstractmethod
    def improve(self, actor: PyTree, batch: Trajectory, clock: Clock) -> tuple[PyTree, Metrics]:
        """The policy's step: its new parameters and what to report."""

    def policy(self, actor: PyTree, batch: Trajectory) -> Distribution:
        """The policy in each step of the batch."""
        sample: Sample = batch.steps
        apply: Any = self.network.apply
        return apply(actor, sample.obs, batch.carry, batch.first, method="policy")[0]

    def surrogate(self, actor: PyTree, batch: Trajectory) -> Array:
        """L(theta) = mean of pi(a | s) / pi_old(a | s) A: to be maximised, 0 with centred A."""
        sample: Sample = batch.steps
        log_prob = self.policy(actor, batch).log_prob(sample.action)
        return mean(jnp.exp(log_prob - sample.log_prob) * sample.advantage)

    def natural_gradient(
        self, actor: PyTree, gradient: PyTree, batch: Trajectory
    ) -> tuple[Solution, Array]:
        """Solves (F + damping I) x = g: the solution, and x^T (F + damping I) x.

        The Fisher matrix is applied, never formed (Schulman et al., 2015, appendix C).
        """
        part = self._part_for_fisher(batch)
        row_ndim = batch.first.ndim
        with jax.default_matmul_precision("highest"):  # also where the policy is linearised
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

            def damped(v):
                return jax.tree.map(lambda f, x: f + self.damping * x, product(v), v)

            solution = conjugate_gradient(
                damped, gradient, self.cg_iterations, tolerance=self.cg_tolerance
            )
        x, residual, b = (ravel_pytree(t)[0] for t in (solution.x, solution.residual, gradient))
        return solution, jnp.dot(x, b - residual, precision=jax.lax.Precision.HIGHEST)

    def _part_for_fisher(self, batch: Trajectory) -> Trajectory:
        """Every `fisher_stride`-th row. Of single steps, row n of step t is copy (n + t) mod N, so
        that the part has all copies in it and not the same few in every step."""
        if self.fisher_stride == 1:
            return batch
        rows = np.arange(0, self._rows[0], self.fisher_stride)
        if self.core == "none":
            step, copy = np.divmod(rows, self.num_envs)
            rows = step * self.num_envs + (copy + step) % self.num_envs
        return minibatch(batch, jnp.asarray(rows), batch.first.ndim - 1)


def scale_to_radius(kl_radius: Scalar, curvature: Array) -> Array:
    """The step size s for which KL(theta, theta + s x) = s^2 x^T F x / 2 is `kl_radius`, to second
    order; 0 where x is no direction (`curvature`, x^T F x, is not positive and finite)."""
    scale = jnp.sqrt(2.0 * kl_radius / curvature)
    return jnp.where((curvature > 0) & jnp.isfinite(scale), scale, 0.0)
