"""The configuration of a run as plain values, as in config.json. It does not import jax."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Self

from jaxrl.engine.options import (
    UNSET,
    Kind,
    Option,
    Options,
    Role,
    TrainingOptions,
    declared,
    option,
    options_class,
)
from jaxrl.errors import InvalidValue
from jaxrl.registry import Algorithm, algorithm, algorithms
from jaxrl.runs.directory import read_config
from jaxrl.runs.run_options import RunOptions
from jaxrl.value_text import parse, value_text

MINARI = "minari:"
"""What the names of Minari's data sets start with, where a directory is meant otherwise."""


@options_class
class Origin(Options):
    """Names of the algorithm and the environment, and what the run started from."""

    algorithm: str = option(role=Role.TRAINING, doc="Name on the command line, or class name")
    environment: str = option(role=Role.TRAINING, doc="Id of the environment, or class name")
    environment_parameters: Mapping[str, Any] = option(
        factory=dict, role=Role.TRAINING, doc="Parameters that differ from their defaults"
    )
    warm_start: str | None = option(
        default=None, role=Role.TRAINING, kind=Kind.TEXT, metavar="RUN",
        doc="Start from the agent and the observation statistics of this run (its first seed)",
    )  # fmt: skip
    dataset: str | None = option(
        default=None, role=Role.TRAINING, kind=Kind.TEXT, metavar="DIR",
        doc="Data set to learn from, for offline agents: a directory that `jaxrl record` wrote, or "
        "minari:ID",
    )  # fmt: skip
    expert: str | None = option(
        default=None, role=Role.TRAINING, kind=Kind.TEXT, metavar="RUN",
        doc="Run whose policy (of its first seed) is the expert, for agents with a teacher",
    )  # fmt: skip


@options_class
class RunConfig(Origin):
    """The complete configuration of a run; config.json has the same fields, flat.

    Attributes:
      training: training options.
      options: evaluation, saving and logging.
    """

    hyper_parameters: Mapping[str, Any] = option(
        role=Role.TRAINING, doc="All or some hyper-parameters, as `value_text.parse` returns them"
    )
    points: tuple[Mapping[str, Any], ...] = option(
        default=(), role=Role.SAMPLE, doc="Hyper-parameters to sweep, as for `fit`"
    )
    seeds: tuple[int, ...] = option(role=Role.SAMPLE, doc="Seeds of the members")
    key_type: str | None = option(
        default=None, role=Role.SAMPLE, doc="Random number generator; None for jax's default"
    )
    training: TrainingOptions
    options: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def of_run(cls, path: Path | str) -> Self:
        """The configuration of the run in a directory.

        Raises:
          ValueError: there is no run, or it was started from Python, so that config.json does not
            fully describe it.
        """
        return cls.of_config(read_config(path), path)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], path: Path | str) -> Self:
        """The configuration in the content of a config.json; `path` is for messages."""
        by_class = {a.class_name: a.name for a in algorithms().values()}
        name = by_class.get(config["algorithm"], config["algorithm"])
        if not (name in algorithms() or ":" in name) or not (
            "/" in (env := config["environment"]) or ":" in env
        ):
            raise InvalidValue(
                f"{path} was started from Python, with {config['algorithm']} on "
                f"{config['environment']}: pass agent= and env= from Python"
            )
        return cls(
            algorithm=name,
            environment=env,
            environment_parameters=config["environment_parameters"],
            warm_start=config.get("warm_start"),
            dataset=config.get("dataset"),
            expert=config.get("expert"),
            hyper_parameters=parsed(algorithm(name), config["hyper_parameters"]),
            points=tuple(config.get("points", ())),
            seeds=tuple(seed % 2**32 for seed in config["seeds"]),  # rbg's key data repeats it
            key_type=config.get("key_type"),
            training=TrainingOptions.of(config),
            options=RunOptions.of(config),
        )

    def config(self) -> dict[str, Any]:
        """The fields as in config.json, flat."""
        own = self.values()
        if not self.points:
            own.pop("points")
        return {**own, **self.training.settings(), **self.options.settings()}

    @property
    def num_members(self) -> int:
        """Seeds, times points of a sweep."""
        return len(self.seeds) * max(1, len(self.points))

    def on_any_devices(self) -> Self:
        """The same run without a request for devices."""
        return dataclasses.replace(self, options=dataclasses.replace(self.options, devices=None))

    def make_env(self) -> Any:
        """Builds the environment; imports jax."""
        import jaxrl_envs

        return jaxrl_envs.make(self.environment, **self.environment_parameters)

    def build_agent(self) -> Any:
        """Builds the agent; imports jax, but does not start its backend.

        Raises:
          ValueError, TypeError: a hyper-parameter is invalid.
        """
        return algorithm(self.algorithm).build(self.hyper_parameters)

    def build(
        self, start: Any = None, data: Any = None, expert: Any = None, env: Any = None
    ) -> Any:
        """Builds the `Members`; imports jax and the environment.

        Args:
          start: a `Learned` to start from; see `jaxrl.runs.load.build`.
          data: the transitions of `dataset`.
          expert: the policy of `expert`.
          env: the result of `make_env`, if there is one already.

        Raises:
          ValueError, TypeError: the configuration is invalid.
        """
        from jaxrl.engine import hosted, sizes
        from jaxrl.engine.training import Training
        from jaxrl.runs.members import Members, keys_of

        agent = self.build_agent()
        if expert is not None and not hasattr(agent, "expert"):
            raise InvalidValue(
                f"expert is {self.expert}, but {self.algorithm} has no teacher: leave it out"
            )
        if expert is not None:
            agent = agent.replace(expert=expert)
        training = Training.create(
            agent,
            self.make_env() if env is None else env,
            **self.training.settings(),
            agent_state=start,
            data=data,
        )
        sizes.check(training, num_seeds=len(self.seeds))
        hosted.check_actors(training, self.options.actors, self.options.actor_lag)
        keys = keys_of(self.seeds, self.key_type, vmapped=len(self.seeds) > 1)
        return Members.of(training, keys, self.points, self.options.devices)


@options_class
class Records(Options):
    """Other entries of config.json; `RunDirectory` writes the versions and the revision."""

    vmapped: bool = option(role=Role.SAMPLE, doc="Whether arrays have an axis of members")
    device: str = option(role=Role.RECORD, doc="Kind of the first device")
    platform: str = option(role=Role.RECORD, doc="Backend of jax")
    schema_version: int | None = option(
        default=None, role=Role.RECORD, doc="Schema version of config.json"
    )
    versions: Mapping[str, str] | None = option(
        default=None, role=Role.RECORD, doc="Versions of Python and of packages"
    )
    revision: Mapping[str, Any] | None = option(
        default=None, role=Role.RECORD, doc="Git commit of the working directory"
    )


SCHEMA: Mapping[str, Option] = {
    name: option
    for options in (TrainingOptions, RunOptions, RunConfig, Records)
    for name, option in declared(options).items()
    if option.role is not Role.PYTHON
}
"""All entries of config.json."""


def role_of(name: str) -> Role:
    """The role of an entry of config.json; unknown entries are compared like training options."""
    return SCHEMA[name].role if name in SCHEMA else Role.TRAINING


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config.json, completed by options that are newer than the file."""
    assumed = {name: x.assumed for name, x in SCHEMA.items() if name not in config}
    return {**config, **{name: x for name, x in assumed.items() if x is not UNSET}}


def changes(
    then: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Phrases for the forbidden changes between a run's config.json and the one it resumes with.

    Args:
      then: the run's configuration.
      now: the other one.
      defaults: values of hyper-parameters that `then` lacks, because they are newer than it.
    """
    old_schema = then.get("schema_version") == 1  # its algorithms had fewer hyper-parameters
    then, now = completed(then), completed(now)
    if defaults and not old_schema:
        then["hyper_parameters"] = {**defaults, **then["hyper_parameters"]}
    for name in {**then, **now}:
        if not _may_change(name) and (name not in SCHEMA or (name in then and name in now)):
            yield from _differences(name, then.get(name), now.get(name), old_schema)


def _may_change(name: str) -> bool:
    grows = name in SCHEMA and SCHEMA[name].may_grow
    return grows or role_of(name) in (Role.FOLLOWING, Role.RECORD)


def _differences(name: str, old: Any, new: Any, old_schema: bool) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for part in {**old, **new}:
            if part in old or not (old_schema or new[part] is None):
                yield from _differences(f"{name}.{part}", old.get(part), new.get(part), old_schema)
    elif old != new:
        yield f"{name} was {old} and is {new}"


def parsed(algorithm: Algorithm, described: Mapping[str, Any]) -> dict[str, Any]:
    """Converts hyper-parameters from JSON to values, as the command line parses them.

    Raises:
      ValueError: one of them is a Python object.
    """
    kinds = {flag.name: flag for flag in algorithm.flags}
    found = {}
    for name, value in described.items():
        flag = kinds.get(name)
        if flag is None:
            if value is not None:
                raise InvalidValue(f"{name} is a Python object: pass agent= and env= from Python")
        elif flag.type == "bool" or flag.choices:
            found[name] = value
        else:
            found[name] = parse(flag.type, value_text(name, value))
    return found
