"""What a run is made of, as words and numbers: what the command line or a config.json says."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from jaxrl.errors import InvalidValue
from jaxrl.registry import Algorithm, algorithms, parse, value_text
from jaxrl.runs.directory import read_config
from jaxrl.runs.run_options import Origin, RunOptions

TRAINING = (
    "total_steps",
    "num_eval_episodes",
    "normalize_observations",
    "normalize_rewards",
    "reset_policy",
    "pool_size",
    "eval_mode",
)
"""Arguments of `Training.create` that a recipe names."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run, before anything is imported for it.

    Attributes:
      algorithm: its name on the command line.
      environment: the environment's id.
      hyper_parameters: those that are not the algorithm's defaults, as `flags.parse` reads them.
      environment_parameters: those to change.
      seeds: of the members.
      training: arguments of `Training.create`.
      settings: how the run is followed.
      points: hyper-parameters to sweep, as for `fit`.
      key_type: the generator of random numbers; None for jax's default.
      warm_start: the directory of a run where this one starts: from the agent and the statistics of
        its first member.
    """

    algorithm: str
    environment: str
    hyper_parameters: Mapping[str, Any]
    environment_parameters: Mapping[str, Any]
    seeds: tuple[int, ...]
    training: Mapping[str, Any]
    options: RunOptions = dataclasses.field(default_factory=RunOptions)
    points: tuple[Mapping[str, Any], ...] = ()
    key_type: str | None = None
    warm_start: str | None = None

    @classmethod
    def of_run(cls, path: Path | str) -> Self:
        """The recipe of the run in a directory.

        Raises:
          ValueError: there is no run, or one that was started from Python, of which config.json
            cannot know everything.
        """
        config = read_config(path)
        by_class = {a.class_name: a.name for a in algorithms().values()}
        name = by_class.get(config["algorithm"], config["algorithm"])
        if name not in algorithms() or not ("/" in (env := config["environment"]) or ":" in env):
            raise InvalidValue(
                f"{path} was started from Python, with {config['algorithm']} on "
                f"{config['environment']}: pass agent= and env= there"
            )
        algorithm = algorithms()[name]
        options = {f.name for f in dataclasses.fields(RunOptions)} & config.keys()
        return cls(
            algorithm=name,
            environment=env,
            hyper_parameters=_parsed(algorithm, config["hyper_parameters"]),
            environment_parameters=config["environment_parameters"],
            seeds=tuple(seed % 2**32 for seed in config["seeds"]),  # the words of rbg repeat it
            training={name: config[name] for name in TRAINING if name in config},
            options=RunOptions(**{name: config[name] for name in options}),
            points=tuple(config.get("points", ())),
            key_type=config.get("key_type"),
            warm_start=config.get("warm_start"),
        )

    @property
    def origin(self) -> Origin:
        return Origin(
            self.algorithm, self.environment, dict(self.environment_parameters), self.warm_start
        )

    def build(self, start: Any = None) -> Any:
        """The `Members` that train; imports jax and the environment.

        Args:
          start: what they start from, a `Learned`; see `jaxrl.runs.load.build`.

        Raises:
          ValueError, TypeError: something does not fit.
        """
        import jaxrl_envs
        from jaxrl.engine import sizes
        from jaxrl.engine.training import Training
        from jaxrl.runs.members import Members, keys_of

        training = Training.create(
            algorithms()[self.algorithm].build(self.hyper_parameters),
            jaxrl_envs.make(self.environment, **self.environment_parameters),
            agent_state=start,
            **self.training,
        )
        sizes.check(training, num_seeds=len(self.seeds))
        keys = keys_of(self.seeds, self.key_type, vmapped=len(self.seeds) > 1)
        return Members.of(training, keys, self.points)


def _parsed(algorithm: Algorithm, described: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as config.json has them, in the form that the command line reads."""
    kinds = {flag.name: flag for flag in algorithm.flags}
    parsed = {}
    for name, value in described.items():
        flag = kinds.get(name)
        if flag is None:
            if value is not None:
                raise InvalidValue(f"{name} is an object of Python: pass agent= and env= there")
        elif flag.type == "bool" or flag.choices:
            parsed[name] = value
        else:
            parsed[name] = parse(flag.type, value_text(name, value))
    return parsed
