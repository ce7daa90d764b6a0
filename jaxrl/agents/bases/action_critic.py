"""A critic f(s, a) of actions, for on-policy agents that fit a critic."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.critic import CriticAgent
from jaxrl.agents.bases.learning import Networks
from jaxrl.errors import InvalidValue
from jaxrl.networks.critics import Critics
from jaxrl.networks.own_modules import OneBatchAxis, call_directly
from jaxrl.networks.torsos import default_torso
from jaxrl.spaces import into_bounds
from jaxrl.trees import num_values
from jaxrl.types import Array, Box, Discrete, EnvSpec, Key, PyTree, Trajectory


class ActionCriticAgent(CriticAgent):
    """Replaces the critic V(s) by f(s, a), for discrete actions or a box."""

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if not isinstance(spec.action, Discrete | Box):
            name = type(self).__name__
            raise InvalidValue(
                f"{name} needs discrete actions or a Box, but the action space is {spec.action}: "
                "use an agent whose critic is V(s), such as RPG or PPO"
            )

    @property
    def critic(self) -> Critics:
        """f: all actions' values for discrete actions, that of (s, a) for a box."""
        spec, own = self.bound_spec, self.torso
        space: Any = spec.action
        few = isinstance(space, Discrete)

        def torso():
            if own is not None:
                return own.clone(parent=None)
            return default_torso(spec, (), self.activation)

        return Critics(
            torso,
            () if few and own is not None else self.hidden_sizes,
            self.activation,
            num_outputs=space.num if few else 1,
            call=call_directly if own is None else OneBatchAxis.of(own, spec, trains=False),
        )

    def init_params(self, key: Key) -> Networks:
        actor, spec = super().init_params(key).actor, self.bound_spec
        space: Any = spec.action
        few = isinstance(space, Discrete)
        action = None if few else self._flat(jnp.zeros((1, *space.shape)))
        return Networks(actor, self.new_params(self.critic, key, spec.dummy_observation(1), action))

    def _flat(self, action: Array) -> Array:
        """Actions of a box within its bounds, as the environment takes them, `[..., D]`."""
        space: Any = self.bound_spec.action
        leading = action.shape[: action.ndim - len(space.shape)]
        rows = action.reshape(-1, *space.shape)
        inside = jax.vmap(lambda a: into_bounds(space, a))(rows)
        return inside.reshape(*leading, num_values(space.shape))

    def action_values(self, critic: PyTree, obs: PyTree, action: Array | None = None) -> Array:
        """f(obs, action), `[...]`; for discrete actions without `action` all values, `[..., A]`."""
        space: Any = self.bound_spec.action
        few, apply = isinstance(space, Discrete), self.critic.apply
        inputs = (obs,) if few or action is None else (obs, self._flat(action))
        values: Any = apply(critic, *inputs)
        if not few or action is None:
            return values[0]
        return jnp.sum(values[0] * jax.nn.one_hot(action, space.num), axis=-1)

    def predict(self, critic: PyTree, batch: Trajectory) -> Array:
        return self.action_values(critic, batch.steps.obs, batch.steps.action)
