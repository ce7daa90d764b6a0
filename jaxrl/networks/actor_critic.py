"""A policy and a state value in one module."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxrl.distributions import (
    Distribution,
)
from jaxrl.networks.layers import dense
from jaxrl.networks.own_modules import call_directly
from jaxrl.networks.policies import PolicyHead
from jaxrl.networks.recurrent import Core, CoreName, initial_carry
from jaxrl.types import ActionSpace, Array, PyTree, split_mask


class ActorCritic(nn.Module):
    """A policy and a state value, with torsos of their own or one in common.

    All methods take `obs` with leading axes `[...]`; with a recurrent core these must be
    `[T, N]`, `carry` the state before step 0 and `first` the episode starts, and what they return
    besides is the recurrent state after each step, leaves `[T, N, ...]`. Without a core `carry` is
    `()` and `first` is not read.

    Attributes:
      torso: builds a new torso from observations to features.
      space: the action space.
      shared: one torso (and core) for both.
      core: the recurrent cell between torso and head.
      core_size: its size.
      policy_network: the policy as a module of its own, `(obs, mask)` to a distribution, instead of
        a torso and a head.
      call_torso, call_policy: how these modules are called, see `jaxrl.networks.own_modules`.
    """

    torso: Callable[[], nn.Module]
    space: ActionSpace
    shared: bool = False
    core: CoreName = "none"
    core_size: int = 64
    initial_log_std: float = 0.0
    policy_network: nn.Module | None = None
    call_torso: Callable[..., Any] = call_directly
    call_policy: Callable[..., Any] = call_directly

    def setup(self) -> None:
        if self.policy_network is not None:
            self.actor = self.policy_network.clone(parent=None)
        else:
            self.actor_torso = self.torso()
            self.actor_head = PolicyHead(self.space, self.initial_log_std)
        self.critic_head = dense(1, 1.0)
        if not self.shared:
            self.critic_torso = self.torso()
        if self.core != "none":
            self.actor_core = Core(self.core, self.core_size)
            if not self.shared:
                self.critic_core = Core(self.core, self.core_size)

    def initial_carry(self, num_envs: int) -> PyTree:
        """The recurrent state in which an episode begins."""
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
        """Both; the recurrent state has the structure of `initial_carry`."""
        if not self.shared:
            distribution, actor = self.policy(obs, carry, first)
            value, critic = self.value(obs, carry, first)
            return distribution, value, () if self.core == "none" else (actor, critic)
        obs, mask = split_mask(obs)
        x, carries = self._features("actor", obs, carry, first)
        return self.actor_head(x, mask), jnp.squeeze(self.critic_head(x), -1), carries
