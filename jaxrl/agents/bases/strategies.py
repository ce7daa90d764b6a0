"""Search algorithms of the library evosax, which is imported only where one is used."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.errors import InvalidValue, did_you_mean
from jaxrl.types import Array, Key, PyTree
from jaxrl.value_text import plain_value

Strategy = Literal[
    "ARS",
    "ASEBO",
    "CMA_ES",
    "CR_FM_NES",
    "DES",
    "ESMC",
    "GradientlessDescent",
    "GuidedES",
    "iAMaLGaM_Full",
    "iAMaLGaM_Univariate",
    "MA_ES",
    "Open_ES",
    "PGPE",
    "Rm_ES",
    "Sep_CMA_ES",
    "SimulatedAnnealing",
    "SimpleES",
    "SNES",
    "xNES",
    "DifferentialEvolution",
    "GESMR_GA",
    "MR15_GA",
    "PSO",
    "SAMR_GA",
    "SimpleGA",
]
FitnessShaping = Literal["ranks", "standardized", "normalized", "returns"]

SHAPINGS = {
    "ranks": "centered_rank_fitness_shaping_fn",
    "standardized": "standardize_fitness_shaping_fn",
    "normalized": "normalize_fitness_shaping_fn",
    "returns": "identity_fitness_shaping_fn",
}


def _evosax() -> tuple[Any, Any]:
    """Its algorithms and fitness shapings.

    The modules make arrays when they are imported, which must not belong to a program being traced.
    """
    with jax.ensure_compile_time_eval():
        from evosax import algorithms
        from evosax.core import fitness_shaping

        return algorithms, fitness_shaping


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """What the constructor of an algorithm takes."""
    return inspect.signature(_evosax()[0].algorithms[name]).parameters


def _lenient(method: Callable) -> Callable:
    """Lets evosax broadcast arrays, also where `jax_numpy_rank_promotion` forbids it."""
    return jax.numpy_rank_promotion("allow")(method)


class SearchStrategy:
    """An algorithm of evosax with its hyper-parameters. evosax minimises: fitness is -return.

    Attributes:
      algorithm: the algorithm.
      params: its hyper-parameters.
      has_population: whether its state is a population rather than a distribution.
    """

    @_lenient
    def __init__(
        self,
        name: str,
        population_size: int,
        solution: PyTree,
        *,
        std: Any = None,
        optimizer: Any = None,
        shaping: str | None = None,
        weight_decay: Any = None,
        options: Mapping[str, Any] = {},
    ) -> None:
        """Builds it.

        Args:
          name: the algorithm's name in evosax.
          population_size: candidates.
          solution: parameters of one candidate, or their shapes.
          std: standard deviation, initial or current; None for evosax's default.
          optimizer: an optax transformation; None for the algorithm's own.
          shaping: a key of `SHAPINGS`; None for the algorithm's own.
          weight_decay: factor of the squared norm, added to the fitness; None for none.
          options: hyper-parameters by name.
        """
        algorithms, shapings = _evosax()
        kind = algorithms.algorithms[name]
        takes = _parameters(name)
        given: dict[str, Any] = {k: v for k, v in options.items() if k in takes}
        if std is not None and "std_schedule" in takes:
            given["std_schedule"] = lambda generation: jnp.asarray(std, jnp.float32)
        if optimizer is not None:
            given["optimizer"] = optimizer
        fitness_of = takes["fitness_shaping_fn"].default
        if shaping is not None:
            fitness_of = getattr(shapings, SHAPINGS[shaping])
        if weight_decay is not None:
            fitness_of = shapings.add_weight_decay(fitness_of, weight_decay)
        with jax.ensure_compile_time_eval():  # some compute sizes from their parameters
            like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), solution)
            self.algorithm = kind(population_size, like, fitness_shaping_fn=fitness_of, **given)
            if "elite_ratio" in options:
                self.algorithm.elite_ratio = options["elite_ratio"]
            params = self.algorithm.default_params
        fields = {k: v for k, v in options.items() if hasattr(params, k)}
        if std is not None and hasattr(params, "std_init"):
            fields = {"std_init": jnp.asarray(std, jnp.float32), **fields}
        self.params = params.replace(**fields)
        self.has_population = name in algorithms.population_based_algorithms

    @_lenient
    def init(self, key: Key, params: PyTree, population: PyTree, fitness: Array) -> Any:
        """The state at `params`; or with a population, leaves `[population_size, ...]`."""
        if self.has_population:
            return self.algorithm.init(key, population, fitness, self.params)
        return self.algorithm.init(key, params, self.params)

    @_lenient
    def ask(self, key: Key, state: Any) -> tuple[PyTree, Any]:
        """New candidates, leaves `[population_size, ...]`, and the state."""
        return self.algorithm.ask(key, state, self.params)

    @_lenient
    def tell(self, key: Key, population: PyTree, fitness: Array, state: Any) -> Any:
        """The state after the candidates' fitness, `float32[population_size]`."""
        return self.algorithm.tell(key, population, fitness, state, self.params)[0]

    @_lenient
    def solution(self, state: Any) -> PyTree:
        """The mean of the distribution, or the best of the population."""
        if self.has_population:
            return self.algorithm.get_best_solution(state)
        return self.algorithm.get_mean(state)


def has_optimizer(name: str) -> bool:
    """Whether the algorithm descends an estimated gradient by an optimiser."""
    return "optimizer" in _parameters(name)


def shapes_weights(name: str) -> bool:
    """Whether the algorithm's own shaping of the fitness gives it weights for its candidates."""
    shaping = _parameters(name)["fitness_shaping_fn"].default
    return shaping.__name__ == "weights_fitness_shaping_fn"


def parse_options(text: str) -> dict[str, Any]:
    """Hyper-parameters from text such as `elite_ratio=0.2,std_min=0.01`."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): plain_value(value.strip()) for name, _, value in parts}


def check_options(name: str, population_size: int, options: Mapping[str, Any]) -> None:
    """Raises ValueError unless the algorithm takes this population and these hyper-parameters."""
    try:
        known = _known_options(name, population_size)
    except AssertionError as error:
        raise InvalidValue(
            f"population_size is {population_size}, which {name} cannot use: "
            f"{str(error) or 'change it'}"
        ) from None
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known, otherwise="its options are")
            listed = ", ".join(f"{k}={v}" for k, v in sorted(known.items()))
            raise InvalidValue(f"strategy_options: {name} has no {option!r}: {hint} {listed}")
        if isinstance(value, str):
            raise InvalidValue(f"strategy_options: {option} is {value!r}, which is not a number")


@jax.ensure_compile_time_eval()
def _known_options(name: str, population_size: int) -> dict[str, Any]:
    """Names and defaults of an algorithm's hyper-parameters; some depend on the parameters."""
    algorithm = SearchStrategy(name, population_size, jnp.zeros(8)).algorithm
    params = vars(algorithm.default_params)
    known = {k: round(float(v), 6) for k, v in params.items() if _is_number(v)}
    takes = _parameters(name).values()
    simple = {x.name: x.default for x in takes if isinstance(x.default, bool | int | float)}
    return known | simple | {"elite_ratio": algorithm.elite_ratio}


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float) or getattr(value, "shape", None) == ()
