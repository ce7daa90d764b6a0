"""Episodic natural actor-critic (Peters and Schaal, "Natural actor-critic", 2008, section 3.3).

The advantage of an episode's steps is f = grad log pi(a | s)^T w, the compatible function
approximation, whose weights w are the natural gradient (Sutton et al., 2000; Kakade, 2001). Summed
along an episode, sum_t discount^t f(s_t, a_t) + J is its return: a linear regression with one row
for each episode, and no value function. The regression of advantages step by step is
`NPG(fisher="empirical")`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import OnPolicy, Update
from jaxrl.agents.bases.baselines import check_whole_episodes, first_episode
from jaxrl.agents.bases.learning import GradientAgent, TrainState
from jaxrl.agents.bases.natural_gradient import FisherAgent, scale_to_radius
from jaxrl.agents.bases.networks import NetworkAgent
from jaxrl.errors import InvalidValue
from jaxrl.estimators import discounted_returns
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.optimizers import ascend, value_and_gradient
from jaxrl.schedules import Scheduled, at
from jaxrl.solvers import Solution, directional_derivative, gauss_newton_product
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, Trajectory


class Episode(struct.PyTreeNode):
    """The steps of one episode for each copy, `[T, N]`.

    Attributes:
      obs: normalised observations.
      action: the actions taken.
      counts: whether the step belongs to the episode.
      weight: discount^t, 0 after the episode.
      episode_return: its discounted return, at every step.
    """

    obs: PyTree
    action: PyTree
    counts: Array
    weight: Array
    episode_return: Array


class NaturalActorCritic(NetworkAgent, GradientAgent, FisherAgent):
    """Episodic natural actor-critic: the natural gradient by regression of returns."""

    default_optimizer = "sgd"

    num_envs: int = 16
    num_steps: int = 500
    learning_rate: Scheduled = 1.0
    max_grad_norm: Scalar | None = None
    kl_radius: Scheduled | None = hyper(
        0.1,
        low=0.0,
        open_low=True,
        doc="KL divergence between the old and new distributions of whole episodes (nats) to which "
        "a step is scaled, to second order, before learning_rate multiplies it. None for the "
        "natural gradient as it is.",
    )

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps, layout="env", reset_each_iteration=True)

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        check_whole_episodes(self.num_steps, spec)
        if self.num_envs < 2:
            raise InvalidValue(
                "num_envs is 1, but a regression needs several episodes: take at least 2"
            )
        for field, plain in (("core", "none"), ("shared_torso", False)):
            if (value := getattr(self, field)) != plain:
                raise InvalidValue(
                    f"{field} is {value!r}: NaturalActorCritic has a policy without memory and no "
                    f"value function. Leave {field}={plain!r}, or use NPG"
                )

    def init_params(self, key: Key) -> PyTree:
        return self.new_params(self.network, key, *self.dummy_inputs(), method="policy")

    def prepare(self, state: TrainState, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Finds the first episode of each copy, its return and the weights of its steps."""
        steps = trajectory.steps
        counts, age = first_episode(steps.terminated | steps.truncated)
        weight = jnp.where(counts, jnp.asarray(self.discount, jnp.float32) ** age, 0.0)
        nothing = jnp.zeros_like(steps.reward)
        returns = discounted_returns(
            steps.reward, nothing, steps.terminated, steps.truncated, self.discount
        )
        whole = jnp.broadcast_to(returns[:1], returns.shape)
        return trajectory.replace(steps=Episode(steps.obs, steps.action, counts, weight, whole))

    def update(self, state: TrainState, batch: Trajectory, key: Key, clock: Clock) -> Update:
        """A step along the natural gradient."""
        solution = self.natural_gradient(state.params, batch)
        scale = jnp.float32(1.0)
        if self.kl_radius is not None:
            curvature = self.curvature(state.params, solution.x, batch)
            scale = scale_to_radius(at(self.kl_radius, clock), curvature)
        direction = jax.tree.map(lambda x: scale * x, solution.x)
        params, optimizer = ascend(self.transform(clock), direction, state.params, state.optimizer)
        metrics = {
            "episode_return": mean(batch.steps.episode_return),
            "step_scale": scale,
            "cg_residual": solution.relative_residual,
            "cg_steps": solution.num_steps,
        }
        return Update(TrainState(params, optimizer), metrics)

    def log_prob(self, params: PyTree, batch: Trajectory, weight: Array) -> Array:
        """sum_t weight_t log pi(a_t | s_t) of each episode, `[N]`."""
        apply: Any = self.network.apply
        policy, _ = apply(params, batch.steps.obs, (), None, method="policy")
        return jnp.sum(weight * policy.log_prob(batch.steps.action), axis=0)

    def natural_gradient(self, params: PyTree, batch: Trajectory) -> Solution:
        """The weights w of the regression.

        With damping 0 it is the least-squares solution of psi_n^T w + J = R_n for the episodes n,
        where psi_n = sum_t discount^t grad log pi(a_t | s_t). Subtracting means leaves J out.
        """
        gain = batch.steps.episode_return[0]  # [N]
        gain = gain - mean(gain)

        def eligibility(params: PyTree) -> Array:  # [N], with the gradients psi_n - mean(psi)
            total = self.log_prob(params, batch, batch.steps.weight)
            return total - mean(total)

        def covariance(params: PyTree) -> tuple[Array, None]:
            return mean(eligibility(params) * gain), None

        with jax.default_matmul_precision("highest"):  # also for the linearisation
            _, gradient = value_and_gradient(covariance, params)
            product = gauss_newton_product(eligibility, params, lambda x: x)
            return self.solve(product, gradient)[0]

    def curvature(self, params: PyTree, direction: PyTree, batch: Trajectory) -> Array:
        """x^T F x for the Fisher matrix F of the distribution of whole episodes, `float32[]`."""
        counts = batch.steps.counts.astype(jnp.float32)  # discount^t may underflow
        _, slope = directional_derivative(
            lambda params: self.log_prob(params, batch, counts), params, direction
        )
        return mean(jnp.square(slope))
