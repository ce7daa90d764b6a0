"""Engine features for authors of agents, beyond the basic contract."""

import jax
import jax.numpy as jnp
import pytest
from helpers.environments import Chain, Counter
from helpers.plans import walk

from jaxrl.agent import Agent, Offline, OnPolicy, Plan, Population, Replay, Update
from jaxrl.engine.train import train
from jaxrl.engine.training import Training
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.types import static

KEY = jax.random.key(0)


class Watcher(Agent):
    """Measures its inputs and learns nothing."""

    replays: bool = static(default=False)
    raw_observations = True
    info = ("cost", "deep/pair")

    @property
    def plan(self):
        if self.replays:
            return Replay(4, 8, 1, batch_size=16, capacity=64, prioritized=True)
        return OnPolicy(4, 8, num_minibatches=4)

    def init(self, key):
        return jnp.zeros(())

    def act(self, state, carry, obs, key, clock, *, explore):
        num = obs.raw.shape[0]
        return carry, jnp.zeros(num, jnp.int32), {"seen": obs, "copy": jnp.arange(num)}

    def update(self, state, batch, key, clock):
        steps = batch if self.replays else batch.steps
        differs = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), steps.obs, steps.extras["seen"])
        metrics = {
            "raw": differs.raw,
            "normalised": differs.obs,
            "scaled": jnp.abs(steps.obs.raw - steps.obs.obs).max(),
            "next": jnp.abs(steps.next_obs.raw[..., 1] - steps.obs.raw[..., 1]).max(),
            "cost": jnp.abs(steps.info["cost"] - 2 * steps.obs.raw[..., 1] - 2).max(),
            "pair": jnp.abs(steps.info["deep/pair"] - steps.info["cost"][:, None]).max(),
            "copy": jnp.abs(batch.env_index - steps.extras["copy"]).max(),
        }
        return Update(state, metrics, jnp.ones(16) if self.replays else None)


class Priced(Counter):
    """Reports the cost of each step: twice the count after it."""

    def step(self, key, state, action):
        state, timestep = super().step(key, state, action)
        cost = 2 * timestep.obs[1]
        info = {"cost": cost, "deep": {"pair": jnp.stack([cost, cost])}}
        return state, timestep.replace(info=info)


@pytest.mark.parametrize("replays", [False, True])
def test_raw_observations_match_the_environment(replays):
    """Each row keeps its info and environment index through shuffling and replay."""
    agent, env = Watcher(replays=replays), Priced(limit=100)
    _, metrics = train(
        agent, env, KEY, total_steps=96, num_evaluations=0, normalize_observations=True
    )
    found = {name: float(x.value[0]) for name, x in metrics.training.updates.items()}
    # With replay, the statistics have changed since the action was chosen.
    same = (
        ("raw", "cost", "pair", "copy")
        if replays
        else ("raw", "cost", "pair", "copy", "normalised")
    )
    assert {found[name] for name in same} == {0.0}
    assert found["next"] == 1.0  # the raw count
    assert found["scaled"] > 1.0


@pytest.mark.parametrize(
    ("env", "has"), [(Counter(), "is empty"), (Priced(), "has cost, deep/pair: name these only")]
)
def test_missing_info_is_rejected_at_build_time(env, has):
    class Other(Watcher):
        info = ("cost", "price") if isinstance(env, Counter) else ("price",)

    message = f"Other.info names .*price, but Timestep.info of this environment {has}"
    with pytest.raises(InvalidValue, match=message):
        Training.create(Other(), env, total_steps=32)


class Closing(Agent):
    """Counts the updates of an iteration, and the rows that `end_iteration` gets."""

    kind: Plan = static(default=OnPolicy(4, 8))
    level: float = 0.5

    @property
    def plan(self):
        return self.kind

    def init(self, key):
        return {"updates": jnp.int32(0), "ends": jnp.int32(0), "rows": jnp.int32(-1)}

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), ()

    def update(self, state, batch, key, clock):
        return Update({**state, "updates": state["updates"] + 1}, {"updates": state["updates"]})

    def end_iteration(self, state, batch, key, clock):
        rows = jax.tree.leaves(batch)
        new = {
            "updates": jnp.int32(0),
            "ends": state["ends"] + 1,
            "rows": jnp.int32(rows[0].shape[0] if rows else 0),
        }
        counted = clock.update == (clock.iteration + 1) * state["updates"]
        return Update(new, {"counted": counted, "level": self.level})


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        (OnPolicy(4, 8, num_epochs=2, num_minibatches=2), 8),
        (Replay(4, 8, 3, batch_size=16, capacity=64), 0),
        (Offline(num_updates=3), 0),
        (Population(4, 1, max_episode_steps=8), 4),
    ],
    ids=["on-policy", "replay", "offline", "population"],
)
def test_end_iteration_is_called_once_per_iteration(plan, rows):
    """After the last update, with the whole batch, metrics and an advanced clock."""
    env, options = Counter(limit=5), {}
    if isinstance(plan, Offline):
        env, options = Chain(), {"data": walk(4)}
    steps = 3 * plan.steps_per_iteration
    state, metrics = train(
        Closing(kind=plan), env, KEY, total_steps=steps, num_evaluations=0, **options
    )
    assert {name: int(x) for name, x in state.agent.items()} == {
        "updates": 0,
        "ends": 3,
        "rows": rows,
    }
    updates = metrics.training.updates
    assert updates["counted"].value[0] == 1.0
    assert updates["level"].count[0] == 3


class Fresh(Agent):
    """Prepares each epoch with the state before that epoch."""

    each: bool = static(default=True)

    @property
    def plan(self):
        return OnPolicy(2, 8, num_epochs=3, num_minibatches=2, prepare_each_epoch=self.each)

    def init(self, key):
        return jnp.float32(0)

    def act(self, state, carry, obs, key, clock, *, explore):
        return carry, jnp.zeros(obs.shape[0], jnp.int32), ()

    def prepare(self, state, trajectory, clock):
        zeros = jnp.zeros(trajectory.first.shape)
        return trajectory.replace(steps={"knew": zeros + state, "update": zeros + clock.update})

    def update(self, state, batch, key, clock):
        knew, late = batch.steps["knew"].mean(), (clock.update - batch.steps["update"]).max()
        each = {f"knew_{i}": jnp.where(clock.update == i, knew, 0) for i in range(6)}
        return Update(state + 1, {**each, "late": late})


def test_targets_are_recomputed_before_each_epoch():
    """Three epochs of two minibatches, with targets from the state after 0, 2 and 4 updates."""

    def knew(agent):
        _, metrics = train(agent, Counter(), KEY, total_steps=16, num_evaluations=0)
        found = metrics.training.updates
        assert found["late"].count[0] == 6
        assert found["late"].total[0] == (3 if agent.each else sum(range(6)))
        return [float(found[f"knew_{i}"].total[0]) for i in range(6)]

    assert knew(Fresh()) == [0, 0, 2, 2, 4, 4]
    assert knew(Fresh(each=False)) == [0] * 6


class Careless(Closing):
    wrong: str = static(default="update")

    def update(self, state, batch, key, clock):
        return (state, {}) if self.wrong == "update" else super().update(state, batch, key, clock)

    def end_iteration(self, state, batch, key, clock):
        return state if self.wrong == "end" else super().end_iteration(state, batch, key, clock)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (Careless(), "Careless.update returned a tuple: return jaxrl.Update\\(state, metrics\\)"),
        (Careless(wrong="end"), "Careless.end_iteration returned a dict: return jaxrl.Update"),
        (
            Closing(kind=Replay(4, 8, 1, batch_size=4, capacity=64, prioritized=True)),
            "Closing.update returned no priorities, which its plan, Replay",
        ),
    ],
)  # fmt: skip
def test_invalid_update_results_are_rejected(agent, message):
    with pytest.raises(InvalidType, match=message):
        jax.eval_shape(lambda key: train(agent, Counter(), key, total_steps=32), KEY)
