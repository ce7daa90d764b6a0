"""Search over a population of policies: updates against NumPy and evosax itself, and probes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax.algorithms import algorithms
from evosax.core.fitness_shaping import centered_rank_fitness_shaping_fn
from helpers.environments import BestActionByObservation, BestContinuousAction, Counter, Recall
from helpers.probes import cases, learned, mode
from jax.flatten_util import ravel_pytree

import jaxrl_envs
from jaxrl.agents import CEM, Evolution, HillClimbing
from jaxrl.engine.sweep import sweep
from jaxrl.engine.train import train
from jaxrl.errors import InvalidValue
from jaxrl.types import Clock, Stream, stream

KEY = jax.random.key(0)
SPEC = BestActionByObservation().spec
CARTPOLE = jaxrl_envs.make("gymnax/CartPole-v1")


def vectors(trees):
    """Parameters of each candidate, `[population_size, size]`."""
    return np.asarray(jax.vmap(lambda tree: ravel_pytree(tree)[0])(trees))


def vector(tree):
    return np.asarray(ravel_pytree(tree)[0])


def returns_of(gains):
    """Two episodes for each candidate, with these means."""
    gains = np.asarray(gains, np.float32)
    return jnp.asarray(np.stack([gains - 1.0, gains + 1.0], axis=1))


# Hill climbing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "best", "factor"),
    [
        ([1.0, 0.0, 3.0, 0.5], 2, 2.0),  # one of three neighbours is better
        ([1.0, 0.0, 0.9, 0.5], 0, 0.5),  # none is
        ([1.0, 0.0, 2.0, 0.5, 0.0, 0.1], 2, 1.0),  # one of five: just the share
        ([1.0, 1.0, 1.0, 1.0], 0, 2.0),  # a plateau: the search widens
        ([1.0, np.nan, 2.0, np.nan], 2, 2.0),
    ],
    ids=["better", "worse", "a fifth", "plateau", "NaN"],
)
def test_hill_climbing_follows_the_rule(gains, best, factor):
    agent = HillClimbing(population_size=len(gains), noise_std=0.5, noise_factor=2.0).bind(SPEC)
    state = agent.init(KEY)
    np.testing.assert_array_equal(vectors(state.candidates)[0], vector(state.params))
    new = agent.update(state, returns_of(gains), KEY, Clock.start()).state
    np.testing.assert_array_equal(vector(new.params), vectors(state.candidates)[best])
    np.testing.assert_array_equal(vectors(new.candidates)[0], vector(new.params))
    np.testing.assert_allclose(new.noise_std, 0.5 * factor)


def test_neighbours_are_spread_by_the_noise_within_its_limits():
    agent = HillClimbing(population_size=400, noise_std=0.5, max_noise_std=0.6).bind(SPEC)
    state = agent.init(KEY)
    noise = vectors(state.candidates)[1:] - vector(state.params)
    assert abs(noise.std() - 0.5) < 0.01
    grown = agent.update(state, jnp.ones((400, 4)), KEY, Clock.start()).state
    np.testing.assert_allclose(grown.noise_std, 0.6)


# The cross-entropy method -------------------------------------------------------------------------


def test_cem_fits_its_gaussian_to_the_elites():
    agent = CEM(population_size=6, num_elites=3, extra_variance=0.25).bind(SPEC)
    state = agent.init(KEY)
    gains = [3.0, 9.0, np.nan, 7.0, 1.0, 8.0]
    update = agent.update(state, returns_of(gains), KEY, Clock.start())
    elites = vectors(state.candidates)[[1, 5, 3]].astype(np.float64)
    np.testing.assert_allclose(vector(update.state.params), elites.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        vector(update.state.variance), elites.var(0) + 0.25, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(update.metrics["elite_return"], 8.0)


def test_cem_samples_its_gaussian():
    agent = CEM(population_size=4000, initial_std=0.5, hidden_sizes=(2,)).bind(SPEC)
    state = agent.init(KEY)
    found = vectors(state.candidates)
    np.testing.assert_allclose(found.mean(0), vector(state.params), atol=4 * 0.5 / np.sqrt(4000))
    np.testing.assert_allclose(found.std(0), 0.5, rtol=0.06)


def test_extra_variance_follows_its_schedule():
    agent = CEM(population_size=4, num_elites=1, hidden_sizes=(2,)).bind(SPEC)  # linear to 0
    state = agent.init(KEY)
    end = Clock.start().replace(fraction=jnp.float32(1.0))
    new = agent.update(state, returns_of([1.0, 2.0, 3.0, 0.0]), KEY, end).state
    np.testing.assert_array_equal(vectors(new.candidates), [vectors(state.candidates)[2]] * 4)


# evosax -------------------------------------------------------------------------------------------

DRIVEN = {
    "CMA_ES": ({"std": 0.3}, {}, {"std_init": 0.3}),
    "SNES": ({"std": 0.3, "strategy_options": "elite_ratio=0.25"}, {}, {"std_init": 0.3}),
    "Open_ES": (
        {"std": 0.3, "learning_rate": 0.1, "fitness_shaping": "ranks", "optimizer": "sgd"},
        {
            "std_schedule": lambda generation: jnp.float32(0.3),
            "optimizer": optax.sgd(0.1),
            "fitness_shaping_fn": centered_rank_fitness_shaping_fn,
        },
        {},
    ),
    "PSO": ({"strategy_options": "inertia_coeff=0.5"}, {}, {"inertia_coeff": 0.5}),
}


@pytest.mark.parametrize("name", DRIVEN)
@jax.numpy_rank_promotion("allow")
def test_evosax_driven_directly_gives_the_same_bits(name):
    options, given, params = DRIVEN[name]
    agent = Evolution(strategy=name, population_size=8, **options).bind(SPEC)
    state = agent.init(KEY)
    start, candidates = state.params, state.candidates

    strategy = algorithms[name](8, jax.tree.map(jnp.zeros_like, start), **given)
    if "elite_ratio" in options.get("strategy_options", ""):
        strategy.elite_ratio = 0.25
    params = strategy.default_params.replace(**params)
    _, ask_key, _ = jax.random.split(stream(KEY, Stream.SAMPLE), 3)
    theirs = None
    if name != "PSO":
        theirs = strategy.init(KEY, start, params)
        candidates, theirs = strategy.ask(ask_key, theirs, params)

    for i in range(3):
        np.testing.assert_array_equal(vectors(state.candidates), vectors(candidates))
        gains = jnp.sin(jnp.arange(8.0) + i)
        key, clock = jax.random.key(i), Clock.start().replace(update=jnp.int32(i))
        state = agent.update(state, returns_of(gains), key, clock).state
        tell_key, ask_key = jax.random.split(stream(key, Stream.SAMPLE))
        fitness = -returns_of(gains).mean(1)
        if theirs is None:
            theirs = strategy.init(tell_key, candidates, fitness, params)
            best = strategy.get_best_solution(theirs)
        else:
            theirs, _ = strategy.tell(tell_key, candidates, fitness, theirs, params)
            best = getattr(strategy, "get_mean", None) or strategy.get_best_solution
            best = best(theirs)
        np.testing.assert_array_equal(vector(state.params), vector(best))
        candidates, theirs = strategy.ask(ask_key, theirs, params)


def names_of_strategies():
    return list(Evolution.__dataclass_fields__["strategy"].type.__args__)


@pytest.mark.parametrize("strategy", cases(names_of_strategies(), "ARS", "CMA_ES", "SimpleGA"))
def test_probe_action_by_observation_for_each_strategy(strategy):
    rate = {"learning_rate": 0.3} if strategy in ("ARS", "Open_ES", "GuidedES", "ESMC") else {}
    agent = Evolution(
        strategy=strategy, std=0.5, hidden_sizes=(4,), episodes_per_candidate=8, **rate
    )
    agent, state, _ = learned(agent, BestActionByObservation(), 30)
    assert mode(agent, state, [[-1.0], [1.0]]).tolist() == [0, 1]


# Probes, and what all of them share ---------------------------------------------------------------

AGENTS = {"hill_climbing": HillClimbing(noise_std=0.5), "cem": CEM()}


@pytest.mark.parametrize("name", AGENTS)
def test_probe_action_by_observation(name):
    agent = AGENTS[name].replace(episodes_per_candidate=8)
    agent, state, _ = learned(agent, BestActionByObservation(), 20)
    assert mode(agent, state, [[-1.0], [1.0]]).tolist() == [0, 1]


@pytest.mark.parametrize("name", cases(AGENTS, "cem"))
def test_probe_continuous_action(name):
    agent = AGENTS[name].replace(episodes_per_candidate=8, population_size=64, hidden_sizes=(4,))
    agent, state, _ = learned(agent, BestContinuousAction(), 40)
    found = mode(agent, state, [[-1.0], [1.0]])[:, 0]
    np.testing.assert_allclose(found, [-0.5, 0.5], atol=0.1)


@pytest.mark.parametrize(("core", "least"), [("gru", 0.9), ("none", -1.0)])
def test_probe_memory(core, least):
    """Only a recurrent policy can recall the cue."""
    agent = CEM(
        population_size=64, episodes_per_candidate=8, core=core, core_size=4, hidden_sizes=(4,),
        initial_std=1.0, extra_variance=0.1,
    )  # fmt: skip
    _, _, metrics = learned(agent, Recall(), 60, num_eval_episodes=256)
    found = float(metrics.evaluation.returns.mean())
    assert found >= least
    if core == "none":
        assert abs(found) < 0.3  # chance


@pytest.mark.thorough
@pytest.mark.parametrize("strategy", ["Open_ES", "SNES"])
def test_points_of_a_sweep_search_like_single_runs(strategy):
    """Not CMA-ES: rounding turns the eigenvectors of equal eigenvalues, and so the candidates."""
    agent = Evolution(strategy=strategy, population_size=8, hidden_sizes=(4,))

    def run(agent):
        env = BestActionByObservation()
        state, _ = train(agent, env, KEY, total_steps=24, num_evaluations=0)
        return jax.vmap(lambda tree: ravel_pytree(tree)[0])(state.agent.candidates)

    stds = [0.1, 0.5]
    together = jax.jit(jax.vmap(run))(sweep(agent, std=stds))
    alone = [jax.jit(run)(agent.replace(std=std)) for std in stds]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.1


@pytest.mark.parametrize("at_once", [2, 3])
def test_candidates_in_parts_play_the_same_episodes(at_once):
    def trained(at_once):
        agent = CEM(
            population_size=6, num_elites=2, episodes_per_candidate=3, candidates_at_once=at_once,
            hidden_sizes=(4,),
        )  # fmt: skip
        steps = 3 * agent.bind(CARTPOLE.spec).plan.steps_per_iteration
        return train(
            agent, CARTPOLE, KEY, total_steps=steps, normalize_observations=True, num_evaluations=0
        )

    one, several = trained(None), trained(at_once)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class Compared(HillClimbing):
    """Candidates that act alike report how much their returns differ."""

    noise_std: float = 1e-12
    min_noise_std: float = 0.0

    def update(self, state, returns, key, clock):
        new = super().update(state, returns, key, clock)
        between = {
            "candidates": jnp.abs(returns - returns[:1]).max(),
            "episodes": jnp.abs(returns - returns[:, :1]).max(),
        }
        return new._replace(metrics=new.metrics | between)


@pytest.mark.parametrize("at_once", [None, 2])
@pytest.mark.parametrize("common", [True, False])
def test_common_random_numbers_give_all_candidates_the_same_episodes(common, at_once):
    agent = Compared(
        population_size=4, episodes_per_candidate=3, common_random_numbers=common,
        candidates_at_once=at_once, hidden_sizes=(4,),
    )  # fmt: skip
    steps = agent.bind(CARTPOLE.spec).plan.steps_per_iteration
    _, metrics = train(agent, CARTPOLE, KEY, total_steps=steps, num_evaluations=0)
    found = {name: float(x.value[0]) for name, x in metrics.training.updates.items()}
    assert (found["candidates"] == 0.0) == common
    assert found["episodes"] > 0.0


@pytest.mark.parametrize("at_once", [None, 2])
def test_statistics_are_of_the_steps_of_the_episodes(at_once):
    """Episodes of 3 steps, in rollouts of 8."""
    agent = CEM(population_size=6, episodes_per_candidate=5, num_elites=2, hidden_sizes=(4,))
    agent = agent.replace(candidates_at_once=at_once)
    env = Counter(lifetime=3, limit=8)
    steps = 2 * agent.bind(env.spec).plan.steps_per_iteration
    state, _ = train(
        agent, env, KEY, total_steps=steps, normalize_observations=True, num_evaluations=0
    )
    (moments,) = state.stats.obs
    assert moments.count == 2 * 6 * 5 * 3
    np.testing.assert_allclose(moments.mean[1], 1.0, rtol=1e-6)
    np.testing.assert_allclose(moments.variance[1], 2 / 3, rtol=1e-6)
    assert abs(moments.mean[0] - 0.5) < 4 * np.sqrt(1 / 12 / 60)
    assert moments.variance[0] < 0.2


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (HillClimbing(population_size=1), "population_size is 1, but a policy and a neighbour"),
        (HillClimbing(min_noise_std=3.0), "min_noise_std is 3.0, which is above max_noise_std = 2"),
        (CEM(num_elites=33), "num_elites is 33, more than population_size = 32"),
        (CEM(candidates_at_once=5), "candidates_at_once is 5, which does not divide population_si"),
        (Evolution(strategy="Open-ES"), "strategy is 'Open-ES': use one of ARS, ASEBO"),
        (Evolution(strategy="CMA_ES", learning_rate=0.1), "CMA_ES has no optimiser"),
        (Evolution(optimizer="adam"), "optimizer is given without a learning_rate"),
        (Evolution(population_size=7), "population_size is 7, which Open_ES cannot use: Populati"),
        (Evolution(strategy="ASEBO", population_size=7), "7, which ASEBO cannot use"),
        (
            Evolution(strategy="SNES", fitness_shaping="returns"),
            "fitness_shaping is 'returns', but SNES needs its own",
        ),
        (HillClimbing(noise_std=5.0), "noise_std is 5.0: it must be between min_noise_std"),
        (CEM(candidates_at_once=0), "candidates_at_once is 0"),
        (
            Evolution(strategy="CMA_ES", strategy_options="std_mim=1"),
            "CMA_ES has no 'std_mim': did you mean std_min",
        ),
        (
            Evolution(strategy="PSO", strategy_options="inertia_coeff=much"),
            "inertia_coeff is 'much', which is not a number",
        ),
    ],
)
def test_invalid_fields_are_rejected(agent, message):
    with pytest.raises(InvalidValue, match=message):
        train(agent, CARTPOLE, KEY, total_steps=10)


def test_a_policy_network_has_no_core():
    import flax.linen as nn

    with pytest.raises(InvalidValue, match="leave core as it is"):
        CEM(policy_network=nn.Dense(2), core="gru").bind(SPEC)
