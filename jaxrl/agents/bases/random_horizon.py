"""Samples (s, a, y) at geometric times: roll in, act, roll out.

A stop comes before each action with probability 1 - discount. The first stop of an episode ends the
roll-in: P(T = t) = (1 - discount) discount^t, so that s is drawn from the discounted states. The
second one ends the roll-out: y, the undiscounted sum of the rewards between the two, has the mean
Q(s, a), because the k-th reward after s is part of it with probability discount^k.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxrl.agent import OnPolicy
from jaxrl.agents.bases.baselines import first_episode
from jaxrl.agents.bases.score_function import ScoreFunctionAgent
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.optimizers import value_and_gradient
from jaxrl.schedules import at
from jaxrl.types import Array, Clock, EnvSpec, Key, Metrics, PyTree, Trajectory, Transition
from jaxrl.validation import holds_anywhere


class Visit(struct.PyTreeNode):
    """A state at a geometric time and the roll-out from there, `[K, N]`.

    Attributes:
      obs: the observation at the first stop.
      action: the action taken.
      policy_action: an action of the policy, which may be another one.
      target: y, later with the value of the state where the roll-out was cut.
      advantage: the weight of `policy_action`'s score.
      valid: whether the episode reached a first stop; other entries count as zero.
      cut: whether the episode was cut off (time limit, end of the rollout) before the second stop.
      next_obs: the observation after the last step of the roll-out.
    """

    obs: PyTree
    action: PyTree
    policy_action: PyTree
    target: Array
    advantage: Array
    valid: Array
    cut: Array
    next_obs: PyTree


class RollOut(NamedTuple):
    """Attributes:
    start, last: time steps of its first and last reward, `int32[N]`.
    y: the sum of its rewards, `float32[N]`.
    valid, cut: see `Visit`, `bool[N]`.
    """

    start: Array
    last: Array
    y: Array
    valid: Array
    cut: Array


def roll_out(stop: Array, steps: Transition) -> RollOut:
    """The roll-out of each copy's first episode, from the first stop to before the second.

    Args:
      stop: `bool[T, N]`, whether a stop comes before the action of the step.
      steps: `[T, N]`.
    """
    alive, _ = first_episode(steps.terminated | steps.truncated)
    stops = jnp.cumsum(stop & alive, axis=0)
    counts = (stops == 1) & alive
    y = jnp.sum(jnp.where(counts, steps.reward, 0.0), axis=0)
    last = counts.shape[0] - 1 - jnp.argmax(counts[::-1], axis=0)
    cut = (stops[-1] == 1) & ~jnp.any(steps.terminated & alive, axis=0)
    return RollOut(jnp.argmax(counts, axis=0), last, y, jnp.any(counts, axis=0), cut)


class RandomHorizonAgent(ScoreFunctionAgent):
    """Draws geometric stops while acting; subclasses say what weighs the scores."""

    num_envs: int = 16
    num_steps: int = 256
    num_pairs: int = hyper(
        1,
        static=True,
        doc="Pairs of stops drawn for each episode, with one sample (s, a, y) each.",
    )

    keeps_noise = False

    @property
    def plan(self) -> OnPolicy:
        return OnPolicy(self.num_envs, self.num_steps, layout="env", reset_each_iteration=True)

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        name = type(self).__name__
        if self.core != "none":
            raise InvalidValue(
                f"core is {self.core!r}: {name} learns from single states, without the steps "
                "before them. Leave core='none', or use REINFORCE"
            )
        if holds_anywhere(lambda discount: discount >= 1.0, self.discount):
            raise InvalidValue(
                f"discount is {self.discount}: {name} stops with probability 1 - discount, so it "
                "must be below 1"
            )

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        if not explore:
            return super().act(state, carry, obs, key, clock, explore=False)
        key, stop_key = jax.random.split(key)
        _, action, extras = super().act(state, (), obs, key, clock, explore=True)
        shape = (*extras["log_prob"].shape, self.num_pairs)
        stop = jax.random.bernoulli(stop_key, 1.0 - self.discount, shape)
        return carry, action, {"stop": stop, "policy_action": action}

    def prepare(self, state: Any, trajectory: Trajectory, clock: Clock) -> Trajectory:
        """Finds the samples (s, a, y): rows `[K, N]`, one per pair of stops and copy."""
        steps = trajectory.steps
        rolled = jax.vmap(roll_out, in_axes=(-1, None))(steps.extras["stop"], steps)
        copies = jnp.arange(steps.reward.shape[1])[None]

        def at_start(x):
            return x[rolled.start, copies]

        visit = Visit(
            obs=jax.tree.map(at_start, steps.obs),
            action=jax.tree.map(at_start, steps.action),
            policy_action=jax.tree.map(at_start, steps.extras["policy_action"]),
            target=rolled.y,
            advantage=rolled.y,
            valid=rolled.valid,
            cut=rolled.cut,
            next_obs=jax.tree.map(lambda x: x[rolled.last, copies], steps.next_obs),
        )
        env_index = jax.tree.map(at_start, trajectory.env_index)
        return Trajectory(visit, at_start(trajectory.first), (), env_index)

    def report(self, state: Any, batch: Trajectory, clock: Clock) -> Metrics:
        """How many episodes reached their first stop, and how many roll-outs were cut."""
        visit: Visit = batch.steps
        return {"sampled": mean(visit.valid), "cut": mean(visit.cut, visit.valid)}

    def gradient(
        self, actor: PyTree, batch: Trajectory, clock: Clock
    ) -> tuple[PyTree, dict[str, Array]]:
        """The gradient E[grad log pi(a | s_T) A] / (1 - discount), to be ascended, and metrics.

        Episodes that end before T count as zero: the discounted states have that much less mass.
        """
        visit: Visit = batch.steps

        def objective(actor):
            apply: Any = self.network.apply
            policy, _ = apply(actor, visit.obs, (), batch.first, method="policy")
            gains = policy.log_prob(visit.policy_action) * visit.advantage
            gain = mean(jnp.where(visit.valid, gains, 0.0)) / (1.0 - self.discount)
            entropy = mean(policy.entropy(), visit.valid)
            bonus = at(self.entropy_coefficient, clock) * entropy
            return gain + bonus, {"policy_loss": -gain, "entropy": entropy}

        (_, metrics), gradient = value_and_gradient(objective, actor)
        return gradient, metrics | {"gradient_norm": optax.tree.norm(gradient)}
