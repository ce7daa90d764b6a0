"""Evolution strategies and other search algorithms, by the library evosax (Lange, 2022)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl.agent import Update
from jaxrl.agents.bases.policy import PolicyLearner
from jaxrl.agents.bases.population import PopulationAgent, drawn
from jaxrl.agents.bases.strategies import (
    FitnessShaping,
    SearchStrategy,
    Strategy,
    check_options,
    has_optimizer,
    parse_options,
    shapes_weights,
)
from jaxrl.errors import InvalidValue
from jaxrl.hyper import hyper
from jaxrl.schedules import Scheduled, at
from jaxrl.trees import strong
from jaxrl.types import Array, Clock, EnvSpec, Key, PyTree, Scalar, Stream, stream
from jaxrl.xla import deadlock


class EvolutionState(struct.PyTreeNode):
    """Attributes:
    params: the policy to deploy: the mean of the strategy's distribution, or its best candidate.
    candidates: parameters, leaves `[population_size, ...]`.
    strategy: state of the strategy.
    """

    params: PyTree
    candidates: PyTree
    strategy: Any


class Evolution(PopulationAgent, PolicyLearner):
    """Evolution strategies, genetic algorithms and swarms, by the library evosax."""

    population_size: int = 64
    strategy: Strategy = hyper("Open_ES", static=True, doc="The algorithm, by its name in evosax.")
    std: Scheduled = hyper(
        0.1,
        low=0.0,
        open_low=True,
        may_end_low=True,
        doc="Standard deviation of the parameters of candidates; the initial one, for strategies "
        "that adapt it. Strategies with a population of their own begin with such a sample. "
        "GradientlessDescent has its radii in strategy_options instead.",
    )
    learning_rate: Scheduled | None = hyper(
        None,
        low=0.0,
        doc="Learning rate of `optimizer`, by default Adam, which replaces that of the strategy; "
        "none for the strategy's own.",
    )
    fitness_shaping: FitnessShaping | None = hyper(
        None,
        static=True,
        doc="What the strategy sees of the returns: ranks from -0.5 to 0.5, returns standardized, "
        "normalized to [-1, 1] or unchanged; none for the strategy's own choice.",
    )
    weight_decay: Scalar | None = hyper(
        None,
        low=0.0,
        doc="Factor of the squared norm of a candidate's parameters, subtracted from its return.",
    )
    strategy_options: str = hyper(
        "",
        static=True,
        doc="Hyper-parameters of the strategy, as in 'elite_ratio=0.2,std_min=0.01'. The error for "
        "an unknown name lists the known ones.",
    )

    def check(self, spec: EnvSpec) -> None:
        super().check(spec)
        if self.learning_rate is None and self.optimizer is not None:
            raise InvalidValue("optimizer is given without a learning_rate: give both")
        if self.learning_rate is not None and not has_optimizer(self.strategy):
            raise InvalidValue(
                f"learning_rate is {self.learning_rate}, but {self.strategy} has no optimiser: "
                "leave it at none"
            )
        if self.fitness_shaping is not None and shapes_weights(self.strategy):
            raise InvalidValue(
                f"fitness_shaping is {self.fitness_shaping!r}, but {self.strategy} needs its own, "
                "which ranks the candidates: leave it at none"
            )
        check_options(self.strategy, self.population_size, parse_options(self.strategy_options))

    def strategy_at(self, params: PyTree, clock: Clock) -> SearchStrategy:
        """The strategy with the current hyper-parameters."""
        rate = self.learning_rate
        return SearchStrategy(
            self.strategy,
            self.population_size,
            params,
            std=at(self.std, clock),
            optimizer=None if rate is None else self.optimizer_at(rate, clock),
            shaping=self.fitness_shaping,
            weight_decay=self.weight_decay,
            options=parse_options(self.strategy_options),
        )

    def init(self, key: Key) -> EvolutionState:
        clock, params = Clock.start(), self.init_params(key)
        strategy = self.strategy_at(params, clock)
        sample_key = stream(key, Stream.SAMPLE)
        start_key, ask_key, draw_key = jax.random.split(sample_key, 3)
        population = drawn(params, at(self.std, clock), draw_key, self.population_size)
        unknown = jnp.full(self.population_size, jnp.inf)
        state = strategy.init(start_key, params, population, unknown)
        if not strategy.has_population:
            population, state = strategy.ask(ask_key, state)
        return EvolutionState(params, population, strong(state))

    def update(self, state: EvolutionState, returns: Array, key: Key, clock: Clock) -> Update:
        """Tells the strategy the returns, and asks for new candidates."""
        gain, metrics = self.gains(returns)
        fitness = jnp.where(jnp.isfinite(gain), -gain, jnp.nan)  # evosax minimises
        key = stream(key, Stream.SAMPLE)
        return Update(deadlock.one_by_one(_step)(self, state, fitness, key, clock), metrics)


def _step(
    agent: Evolution, state: EvolutionState, fitness: Array, key: Key, clock: Clock
) -> EvolutionState:
    strategy = agent.strategy_at(state.params, clock)
    tell_key, ask_key = jax.random.split(key)
    new = strategy.tell(tell_key, state.candidates, fitness, state.strategy)
    if strategy.has_population:  # its first population is only evaluated
        first = strategy.init(tell_key, state.params, state.candidates, fitness)
        new = jax.tree.map(lambda x, y: jnp.where(clock.update == 0, x, y), first, new)
    params = strategy.solution(new)
    candidates, new = strategy.ask(ask_key, new)
    return EvolutionState(params, candidates, strong(new))
