"""Actor-critic networks."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxrl.distributions import (
    Distribution,
)
from jaxrl.networks.layers import dense
from jaxrl.networks.own_modules import call_directly
from jaxrl.networks.policies import BoxPolicy, PolicyHead, StdFrom
from jaxrl.networks.recurrent import Core, CoreName, initial_carry
from jaxrl.types import ActionSpace, Array, PyTree, split_mask


class ActorCritic(nn.Module):
    """A policy and a state value, with separate torsos or a shared one.

    All methods take `obs` with leading axes `[...]`. With a recurrent core these must be `[T, N]`,
    `carry` is the state before step 0 and `first` marks episode starts; the methods also return
    the recurrent state after each step, leaves `[T, N, ...]`. Without a core, `carry` is `()` and
    `first` is ignored.

    Attributes:
      torso: builds a new torso, a module from observations to features.
      space: the action space.
      shared: whether actor and critic share one torso (and core).
      core: the recurrent cell between torso and head.
      core_size: size of the recurrent cell.
      truncate_every: see `Core`.
      initial_log_std, box_policy, std_from: see `PolicyHead`.
      policy_network: a module `(obs, mask) -> distribution` that replaces torso and head.
      call_torso, call_policy: how to call user-defined modules, see `jaxrl.networks.own_modules`.
    """

    torso: Callable[[], nn.Module]
    space: ActionSpace
    shared: bool = False
    core: CoreName = "none"
    core_size: int = 64
    truncate_every: int | None = None
    initial_log_std: float = 0.0
    box_policy: BoxPolicy = "gaussian"
    std_from: StdFrom = "parameter"
    policy_network: nn.Module | None = None
    call_torso: Callable[..., Any] = call_directly
    call_policy: Callable[..., Any] = call_directly

    def setup(self) -> None:
        if self.policy_network is not None:
            self.actor = self.policy_network.clone(parent=None)
        else:
            self.actor_torso = self.torso()
            self.actor_head = PolicyHead(
                self.space, self.initial_log_std, self.box_policy, self.std_from
            )
        self.critic_head = dense(1, 1.0)
        if not self.shared:
            self.critic_torso = self.torso()
        if self.core != "none":
            self.actor_core = Core(self.core, self.core_size, self.truncate_every)
            if not self.shared:
                self.critic_core = Core(self.core, self.core_size, self.truncate_every)

    def initial_carry(self, num_envs: int) -> PyTree:
        """The recurrent state at the start of an episode."""
        one = initial_carry(self.core, self.core_size, num_envs)
        return one if self.shared or self.core == "none" else (one, one)

    def _features(self, which: str, obs: PyTree, carry: PyTree, first: Array | None) -> Any:
        which = "actor" if self.shared else which
        x = self.call_torso(getattr(self, f"{which}_torso"), obs)
        if self.core == "none":
            return x, ()
        if not self.shared:
            carry = carry[0 if which == "actor" else 1]
        _, x, carries = getattr(self, f"{which}_core")(carry, x, first)
        return x, carries

    def policy(
        self, obs: PyTree, carry: PyTree = (), first: Array | None = None
    ) -> tuple[Distribution, PyTree]:
        """The distribution over actions, `[...]`."""
        obs, mask = split_mask(obs)
        if self.policy_network is not None:
            return self.call_policy(self.actor, obs, mask), ()
        x, carries = self._features("actor", obs, carry, first)
        return self.actor_head(x, mask), carries

    def value(
        self, obs: PyTree, carry: PyTree = (), first: Array | None = None
    ) -> tuple[Array, PyTree]:
        """V(obs), `float32[...]`."""
        x, carries = self._features("critic", split_mask(obs)[0], carry, first)
        return jnp.squeeze(self.critic_head(x), -1), carries

    def __call__(
        self, obs: PyTree, carry: PyTree = (), first: Array | None = None
    ) -> tuple[Distribution, Array, PyTree]:
        """The distribution, the value, and the recurrent state, structured like `initial_carry`."""
        if not self.shared:
            distribution, actor = self.policy(obs, carry, first)
            value, critic = self.value(obs, carry, first)
            return distribution, value, () if self.core == "none" else (actor, critic)
        obs, mask = split_mask(obs)
        x, carries = self._features("actor", obs, carry, first)
        return self.actor_head(x, mask), jnp.squeeze(self.critic_head(x), -1), carries
