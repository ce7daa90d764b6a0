"""Base classes of on-policy agents with a policy and a state-value function."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import EvalMode, Update
from jaxrl.agents.bases.learning import GradientAgent, RolloutAgent, check_widths
from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidValue
from jaxrl.estimators import gae
from jaxrl.hyper import hyper
from jaxrl.losses import explained_variance, standardize
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module
from jaxrl.networks.recurrent import CoreName
from jaxrl.networks.torsos import default_torso
from jaxrl.optimizers import TransformOf, descend
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Scalar, Trajectory
from jaxrl.xla.blocks import map_blocks
from jaxrl.xla.unvmap import unvmap_any


class Sample(struct.PyTreeNode):
    """A step as `update` needs it; leading axes `[B]`, or `[T, N]` for whole sequences.

    Attributes:
      obs: normalised observations.
      action: the action taken.
      log_prob: its log-probability under the policy that took it.
      value: V(obs) before the update.
      advantage: the GAE advantage.
      target: the value target, advantage + value.
      valid: which steps the critic learns from; None for all.
    """

    obs: PyTree
    action: PyTree
    log_prob: Array
    value: Array
    advantage: Array
    target: Array
    valid: Array | None = None


class NetworkAgent(RolloutAgent):
    """Networks for policy and state value, acting, and the values of a rollout."""

    num_steps: int = 128
    hidden_sizes: tuple[int, ...] = hyper(
        (64, 64), static=True, doc="Widths of the hidden layers of each network."
    )
    activation: Activation = hyper("tanh", static=True, doc="Activation function.")
    shared_torso: bool = hyper(
        False, static=True, doc="Whether policy and value function share a torso."
    )
    core: CoreName = hyper(
        "none",
        static=True,
        doc="Recurrent cell between torso and heads, for environments that need memory.",
    )
    core_size: int = hyper(64, static=True, doc="Size of the recurrent state.")
    torso: nn.Module | None = hyper(
        None,
        static=True,
        doc="Your own flax module from observations `[B, ...]` to features `[B, F]`, with params "
        "alone: no batch statistics, no dropout. None for an MLP of hidden_sizes.",
    )
    policy_network: nn.Module | None = hyper(
        None,
        static=True,
        doc="Your own flax module from (obs, mask), `[B, ...]`, to a distribution over actions, "
        "with params alone; None for a torso.",
    )

    eval_modes: ClassVar[tuple[EvalMode, ...]] = ("greedy", "sample")

    @property
    def layout(self) -> Literal["flat", "env"]:
        return "flat" if self.core == "none" else "env"

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.policy_network is not None and (self.core != "none" or self.shared_torso):
            raise InvalidValue(
                "policy_network is the whole policy: it has no core and shares no torso. "
                "Leave core and shared_torso as they are, or give a torso instead"
            )
        if self.torso is None:
            check_widths(self.hidden_sizes)
        for field in ("torso", "policy_network"):
            check_module(self, field, spec, trains=False)

    @property
    def network(self) -> ActorCritic:
        """The policy and the value, as one flax module."""
        spec = self.bound_spec

        def torso():
            if self.torso is not None:
                return self.torso.clone(parent=None)
            return default_torso(spec, self.hidden_sizes, self.activation)

        def call(module):
            return call_directly if module is None else OneBatchAxis.of(module, spec, trains=False)

        return ActorCritic(
            torso,
            spec.action,
            self.shared_torso,
            self.core,
            self.core_size,
            policy_network=self.policy_network,
            call_torso=call(self.torso),
            call_policy=call(self.policy_network),
        )

    def init_params(self, key: Key) -> PyTree:
        """Initial parameters of the networks."""
        return self.network.init(key, *self.dummy_inputs())

    def dummy_inputs(self) -> tuple[PyTree, PyTree, Array]:
        """An observation, a carry and a start of an episode, for `init` of a network."""
        return (
            self.bound_spec.dummy_observation(1, 1),
            self.initial_carry(1),
            jnp.ones((1, 1), bool),
        )

    def initial_carry(self, num_envs: int) -> PyTree:
        return self.network.initial_carry(num_envs)

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        policy, carry = self.acting_policy(state, carry, obs, explore=explore)
        action = policy.sample(key) if explore else policy.mode()
        return carry, action, {"log_prob": policy.log_prob(action)}

    def acting_policy(
        self, state: Any, carry: PyTree, obs: PyTree, *, explore: bool
    ) -> tuple[Distribution, PyTree]:
        """The policy by which `act` chooses actions `[N]`, and the recurrent state after it."""
        if self.core == "none":
            policy, _ = self.network.apply(self.actor_params(state), obs, method="policy")
            return policy, carry
        # A sequence of one step, whose carry is already reset.
        obs = jax.tree.map(lambda x: x[None], obs)
        first = jnp.zeros(jax.tree.leaves(obs)[0].shape[:2], bool)
        apply: Any = self.network.apply
        found = apply(self.actor_params(state), obs, carry, first, method="policy")
        policy, carries = jax.tree.map(lambda x: x[0], found)
        if not self.shared_torso:
            _, of_critic = apply(self.critic_params(state), obs, carry, first, method="value")
            carries = carries, jax.tree.map(lambda x: x[0], of_critic)
        return policy, carries

    def actor_params(self, state: Any) -> PyTree:
        """Parameters that the method `policy` of the network needs."""
        return state.params

    def critic_params(self, state: Any) -> PyTree:
        """Parameters that the method `value` of the network needs."""
        return state.params

    def values(self, params: PyTree, trajectory: Trajectory) -> tuple[Array, Array]:
        """V(obs) and V(next_obs), both `float32[T, N]`; V(next_obs) is 0 after termination.

        The next observation is that of the next step, unless the episode was truncated. So it is
        evaluated only for the last step, and for blocks (`map_blocks`) with truncations. A
        recurrent V(next_obs) continues from the state after obs.
        """
        steps, recurrent = trajectory.steps, self.core != "none"

        def value(obs, carry, first):
            return self.network.apply(params, obs, carry, first, method="value")

        def value_after(next_obs, carries):
            """V of observations `[t, N, ...]`, each with its own recurrent state."""
            if not recurrent:
                return value(next_obs, (), None)[0]
            flat = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), next_obs)
            carry = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), carries)
            if not self.shared_torso:
                carry = ((), carry)
            first = jnp.zeros(jax.tree.leaves(flat)[0].shape[:2], bool)
            leading = jax.tree.leaves(next_obs)[0].shape[:2]
            return value(flat, carry, first)[0].reshape(leading)

        if recurrent:
            values, carries = value(steps.obs, trajectory.carry, trajectory.first)
        else:
            values = map_blocks(lambda obs: value(obs, (), None)[0], steps.obs)
            carries = ()

        def where_cut(block):
            next_obs, carries, cut = block
            nothing = jnp.zeros_like(cut, jnp.float32)
            return jax.lax.cond(
                unvmap_any(jnp.any(cut)), lambda: value_after(next_obs, carries), lambda: nothing
            )

        last = jax.tree.map(lambda x: x[-1:], (steps.next_obs, carries))
        at_cuts = map_blocks(where_cut, (steps.next_obs, carries, steps.truncated))
        following = jnp.concatenate([values[1:], value_after(*last)])
        next_values = jnp.where(steps.truncated, at_cuts, following)
        return values, jnp.where(steps.terminated, 0.0, next_values)


def with_advantages(
    trajectory: Trajectory, values: Array, next_values: Array, discount: Scalar, lambda_: Scalar
) -> Trajectory:
    """The trajectory with `Sample`s as steps: GAE and value targets.

    Args:
      trajectory: of transitions `[T, N]`, with `log_prob` among their extras.
      values, next_values: see `NetworkAgent.values`.
      discount: gamma.
      lambda_: of generalised advantage estimation.
    """
    steps = trajectory.steps
    ends = steps.terminated, steps.truncated
    advantages = gae(steps.reward, values, next_values, *ends, discount, lambda_)
    sample = Sample(
        obs=steps.obs,
        action=steps.action,
        log_prob=steps.extras["log_prob"],
        value=values,
        advantage=advantages,
        target=advantages + values,
    )
    return trajectory.replace(steps=sample)


class ActorCriticAgent(NetworkAgent):
    """Actor-critic with GAE; subclasses add `init` and `update`."""

    gae_lambda: Scalar = hyper(
        0.95, low=0.0, high=1.0, doc="Lambda of generalised advantage estimation."
    )
    normalize_advantages: bool = hyper(
        True, static=True, doc="Standardise the advantages of each update."
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        plan = self.plan
        if self.normalize_advantages and plan.steps_per_iteration == plan.num_minibatches:
            parts = " / num_minibatches" if hasattr(self, "num_minibatches") else ""
            fewer = ", take fewer minibatches" if parts else ""
            raise InvalidValue(
                f"normalize_advantages standardises over num_envs * num_steps{parts} = 1 step per "
                "update: a single advantage always becomes 0, and the policy never learns. Collect "
                f"more steps{fewer} or set normalize_advantages=False"
            )

    def prepare(self, state: Any, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Computes values, GAE and value targets (Schulman et al., 2016, eq. 16)."""
        values = self.values(self.critic_params(state), trajectory)
        return with_advantages(trajectory, *values, self.discount, self.gae_lambda)

    def policy(self, params: PyTree, batch: Trajectory) -> Distribution:
        """The policy's distribution at each step of the batch.

        Args:
          params: those that the method `policy` of the network needs.
          batch: of `Sample`s.
        """
        sample: Sample = batch.steps
        apply: Any = self.network.apply
        return apply(params, sample.obs, batch.carry, batch.first, method="policy")[0]

    def advantages(self, sample: Sample) -> Array:
        """Advantages of a batch, standardised if `normalize_advantages` is set."""
        return standardize(sample.advantage) if self.normalize_advantages else sample.advantage

    def report(self, state: Any, batch: Trajectory, clock: Clock) -> Metrics:
        """The explained variance of the value targets, before the update."""
        sample: Sample = batch.steps
        return {"explained_variance": explained_variance(sample.value, sample.target)}


class JointLossAgent(ActorCriticAgent, GradientAgent):
    """Actor-critic with a joint loss: policy loss + c_1 value loss - c_2 entropy."""

    entropy_coefficient: Scheduled = hyper(0.01, low=0.0, doc="Weight of the entropy bonus.")
    value_coefficient: Scalar = hyper(0.5, low=0.0, doc="Weight of the value loss, 0.5 (R - V)^2.")
    max_grad_norm: Scalar | None = 0.5

    @abstractmethod
    def loss(
        self, params: PyTree, state: Any, batch: Trajectory, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The loss of a minibatch, a function of `params`, and what to report.

        `state` is the agent's state, whose other fields (a coefficient that adapts) are constants.
        """

    def policy_and_values(self, params: PyTree, batch: Trajectory) -> tuple[Distribution, Array]:
        """The policy's distribution and V(obs) at each step of the batch."""
        sample: Sample = batch.steps
        both: Any = self.network.apply(params, sample.obs, batch.carry, batch.first)
        policy, values, _ = both
        return policy, values

    def joint_loss(
        self, policy_loss: Array, value_loss: Array, entropy: Array, clock: Clock
    ) -> tuple[Array, dict[str, Array]]:
        """The weighted sum of the three terms, and the terms as metrics."""
        bonus = at(self.entropy_coefficient, clock) * entropy
        loss = policy_loss + self.value_coefficient * value_loss - bonus
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def step(
        self, state: Any, batch: Trajectory, clock: Clock, transform: TransformOf | None = None
    ) -> Update:
        """One gradient step on a minibatch; `transform` is the optimiser, given the metrics."""
        params, optimizer, _, metrics = descend(
            self.transform(clock) if transform is None else transform,
            lambda params: self.loss(params, state, batch, clock),
            state.params,
            state.optimizer,
            as_vector="params" in self.flattened,
        )
        return Update(state.replace(params=params, optimizer=optimizer), metrics)
