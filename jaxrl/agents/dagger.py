"""DAgger: data-set aggregation (Ross, Gordon and Bagnell, "A reduction of imitation learning and
structured prediction to no-regret online learning", 2011, algorithm 3.1).
"""

from typing import Any

import jax

from jaxrl.agent import Update
from jaxrl.agents.bases.cloning import CloningAgent, mistakes
from jaxrl.agents.bases.experts import Expert, check_expert, expert_action, expert_carry
from jaxrl.agents.bases.learning import ReplayAgent, TrainState
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.losses import mean
from jaxrl.optimizers import learn
from jaxrl.replay.buffer import Replayed
from jaxrl.schedules import Linear, Scheduled, at
from jaxrl.trees import tree_where
from jaxrl.types import Array, Clock, EnvSpec, Key, Observed, PyTree, Scalar


class DAgger(CloningAgent, ReplayAgent):
    """DAgger: the expert labels all states that a mixture of policy and expert visits.

    The data set is a replay buffer: once `capacity` is reached, the oldest labels are forgotten.
    """

    discount: Scalar = 1.0
    learning_rate: Scheduled = 1e-3
    num_steps: int = 16
    num_updates: int = 16
    capacity: int = 100_000
    warmup: int = 0
    beta: Scheduled = hyper(
        Linear(1.0, 0.0, 0.5),
        low=0.0,
        high=1.0,
        doc="Probability that the expert acts, in each step.",
    )
    expert: Expert | None = hyper(
        None,
        static=True,
        doc="The expert: a function from observations `[N, ...]`, as the environment returns them, "
        "to actions `[N, ...]`, or a loaded policy.",
    )

    raw_observations = True
    eval_modes = ("greedy",)  # when it explores, the expert acts, too

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.n_step != 1:
            raise InvalidValue(f"n_step is {self.n_step}, but labels are of single steps: use 1")
        if self.expert is None:
            raise InvalidValue(
                "expert is None: give a function from observations to actions, a policy from "
                "jaxrl.load_policy, or --expert RUN on the command line"
            )
        check_expert(self.expert, spec)

    @property
    def carry_only_explores(self) -> bool:
        return True

    def initial_carry(self, num_envs: int) -> PyTree:
        return expert_carry(self.expert, num_envs)

    def act(
        self, state: Any, carry: PyTree, obs: PyTree, key: Key, clock: Clock, *, explore: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        assert isinstance(obs, Observed)
        action = self.policy(state.params, obs.obs, ())[0].mode()
        if not explore:
            return carry, action, ()
        label, carry = expert_action(self.expert, obs.raw, carry)
        number = jax.tree.leaves(action)[0].shape[0]
        by_expert = jax.random.bernoulli(key, at(self.beta, clock), (number,))
        return carry, tree_where(by_expert, label, action), {"label": label}

    def update(self, state: TrainState, rows: Replayed, key: Key, clock: Clock) -> Update:
        """One gradient step on the expert's labels of visited states."""
        label = rows.extras["label"]

        def loss(params: PyTree) -> tuple[Array, tuple[PyTree, Array]]:
            policy, _ = self.policy(params, rows.obs.obs, ())
            return -mean(policy.log_prob(label)), (None, mistakes(label, policy.mode()))

        params, optimizer, value, wrong = learn(
            self.transform(clock), loss, state.params, state.optimizer
        )
        return Update(TrainState(params, optimizer), {"loss": value, "mistakes": wrong})
