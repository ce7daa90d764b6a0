"""Base class of agents with a policy network and a state value: acting, and values of a rollout."""

from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl.agent import EvalMode
from jaxrl.agents.bases.kept_noise import KeptNoise, check_kept
from jaxrl.agents.bases.learning import RolloutAgent, check_widths
from jaxrl.distributions import Distribution, FeatureGaussian
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.layers import Activation
from jaxrl.networks.own_modules import OneBatchAxis, call_directly, check_module
from jaxrl.networks.policies import BoxPolicy, StdFrom, check_box_policy
from jaxrl.networks.recurrent import CoreName
from jaxrl.networks.torsos import default_torso
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Trajectory
from jaxrl.xla.blocks import map_blocks
from jaxrl.xla.unvmap import unvmap_any


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
    truncate_every: int | None = hyper(
        None,
        static=True,
        doc="Steps of truncated backpropagation through time; none for the whole rollout.",
    )
    box_policy: BoxPolicy = hyper(
        "gaussian",
        static=True,
        doc="Policy over a box of actions: gaussian, whose actions the environment clips; "
        "squashed, a Gaussian's tanh scaled to the bounds; or beta, between the bounds.",
    )
    initial_log_std: float = hyper(
        0.0,
        static=True,
        low=-20.0,
        high=10.0,
        doc="Initial log standard deviation of actions; of the Gaussian before tanh, if squashed; "
        "of the noise's weights, with std_from='features', where -2 is usual.",
    )
    std_from: StdFrom = hyper(
        "parameter",
        static=True,
        doc="Standard deviation of actions. parameter: learned, equal in all states; output: of "
        "the network; features: generalised state-dependent exploration (gSDE), noise linear in "
        "the features, weights drawn once per episode, no gradient to the features.",
    )
    noise_every: int | None = hyper(
        None,
        static=True,
        doc="Steps after which gSDE draws its weights again; none for once per episode.",
    )
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
    keeps_noise: ClassVar[bool] = True
    """Whether `act` can keep its noise for several steps (`std_from="features"`)."""

    @property
    def layout(self) -> Literal["flat", "env"]:
        return "flat" if self.core == "none" else "env"

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        options = self._box_options
        check_box_policy(spec.action, *options)
        if self.policy_network is not None:
            if self.core != "none" or self.shared_torso:
                raise InvalidValue(
                    "policy_network is the whole policy: it has no core and shares no torso. "
                    "Leave core and shared_torso as they are, or give a torso instead"
                )
            if options != (0.0, "gaussian", "parameter"):
                raise InvalidValue(
                    "policy_network is the whole policy: leave initial_log_std, box_policy and "
                    "std_from as they are, or give a torso instead"
                )
        if self.std_from == "features" and (self.core != "none" or not self.keeps_noise):
            name = type(self).__name__
            which = f"{name} with core={self.core!r}" if self.keeps_noise else name
            raise InvalidValue(
                f"std_from is 'features', but {which} cannot keep noise for several steps: use "
                "'output' or 'parameter'"
            )
        check_kept(self.std_from, self.noise_every)
        if self.truncate_every is not None and self.core == "none":
            raise InvalidValue(
                f"truncate_every is {self.truncate_every}, but core is 'none': only recurrent "
                "networks backpropagate through time"
            )
        if self.torso is None:
            check_widths(self.hidden_sizes)
        for field in ("torso", "policy_network"):
            check_module(self, field, spec, trains=False)

    @property
    def _box_options(self) -> tuple[float, BoxPolicy, StdFrom]:
        return self.initial_log_std, self.box_policy, self.std_from

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
            self.truncate_every,
            *self._box_options,
            policy_network=self.policy_network,
            call_torso=call(self.torso),
            call_policy=call(self.policy_network),
        )

    def init_params(self, key: Key) -> PyTree:
        """Initial parameters of the networks."""
        return self.new_params(self.network, key, *self.dummy_inputs())

    def dummy_inputs(self) -> tuple[PyTree, PyTree, Array]:
        """An observation, a carry and a start of an episode, for `init` of a network."""
        return (
            self.bound_spec.dummy_observation(1, 1),
            self.network.initial_carry(1),
            jnp.ones((1, 1), bool),
        )

    @property
    def carry_only_explores(self) -> bool:
        return self.std_from == "features"

    def initial_carry(self, num_envs: int) -> PyTree:
        if self.carry_only_explores:
            return KeptNoise.start(num_envs, self._noise_shape)
        return self.network.initial_carry(num_envs)

    @property
    def _noise_shape(self) -> tuple[int, ...]:
        """Shape of the weights of noise linear in features, `[F, *shape]`."""

        def policy(key):
            return self.network.init_with_output(key, *self.dummy_inputs(), method="policy")[0][0]

        return jax.eval_shape(policy, jax.random.key(0)).weight_log_std.shape[2:]

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        policy, carry = self.acting_policy(state, carry, obs, explore=explore)
        if explore and isinstance(policy, FeatureGaussian):
            carry = carry.next(key, self.noise_every)
            action = policy.sample_with(carry.noise)
        else:
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
