"""Munchausen Q-learning, as an option of agents with Q-networks.

Vieillard, Pietquin and Geist, "Munchausen reinforcement learning", 2020.
"""

import jax
import jax.numpy as jnp

from jaxrl.agents.bases.action_values import QAgent
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.networks.q_networks import of_actions
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Array, EnvSpec, Key, PyTree, Scalar, Stream, stream


class MunchausenAgent(QAgent):
    """Adds the scaled log-policy to the reward, and regularises the next value by its entropy."""

    munchausen: Scalar | None = hyper(
        None,
        low=0.0,
        high=1.0,
        doc="Munchausen's weight of log pi(a | s) in the reward, alpha, for the softmax policy of "
        "the target network; 0.9 in the paper, 0 for soft Q-learning, none for standard "
        "Q-learning.",
    )
    munchausen_temperature: Scalar = hyper(
        0.03, low=0.0, open_low=True, doc="Temperature of Munchausen's softmax policy, tau."
    )
    munchausen_clip: Scalar = hyper(
        -1.0, high=0.0, doc="Lower limit of tau log pi(a | s) in the reward, l_0."
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.munchausen is None:
            return
        heads = ("scalar", "quantile", "iqn")
        for name, needed in (("head", heads), ("double", ("none",)), ("n_step", (1,))):
            if (value := getattr(self, name)) not in needed:
                choices = " or ".join(map(repr, needed))
                raise InvalidValue(
                    f"munchausen is {self.munchausen} and {name} is {value!r}: munchausen needs "
                    f"{name} {choices}"
                )

    def next_outputs(
        self,
        evaluator: PyTree,
        next_obs: PyTree,
        select_key: Key,
        evaluate_key: Key,
        selector: PyTree | None,
    ) -> Array:
        """sum_a pi(a | s') (Z(s', a) - tau log pi(a | s')), `[B, K]` (eq. 1)."""
        if self.munchausen is None:
            return super().next_outputs(evaluator, next_obs, select_key, evaluate_key, selector)
        num = self.num_target_levels
        outputs, _ = self.outputs(evaluator, next_obs, evaluate_key, num_levels=num)
        log_pi = self._scaled_log_policy(
            self.own_values(outputs, evaluator, next_obs, evaluate_key, select_key)
        )
        pi = jnp.exp(log_pi / self.munchausen_temperature)
        return jnp.sum(pi[..., None] * (outputs - log_pi[..., None]), axis=1)

    def td_errors(
        self,
        params: PyTree,
        evaluator: PyTree,
        rows: Replayed,
        key: Key,
        *,
        selector: PyTree | None = None,
    ) -> tuple[Array, Array, PyTree]:
        """As without Munchausen, with alpha [tau log pi(a | s)]_{l_0}^0 added to the reward."""
        if self.munchausen is not None:
            q = self.network_values(evaluator, rows.obs, stream(key, Stream.SAMPLE))
            log_pi = self._scaled_log_policy(q)
            taken = of_actions(log_pi[..., None], rows.action)[:, 0]
            bonus = self.munchausen * jnp.clip(taken, self.munchausen_clip, 0.0)
            rows = rows.replace(reward=rows.reward + jax.lax.stop_gradient(bonus))
        return super().td_errors(params, evaluator, rows, key, selector=selector)

    def _scaled_log_policy(self, q: Array) -> Array:
        """tau log pi(. | s), `float32[B, A]`, of the softmax of Q / tau."""
        return self.munchausen_temperature * jax.nn.log_softmax(q / self.munchausen_temperature)
