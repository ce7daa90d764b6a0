"""What a run is made of, as words and numbers: what the command line or a config.json says."""

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


@options_class
class Origin(Options):
    """What the record of a run calls its algorithm and its environment."""

    algorithm: str = option(role=Role.TRAINING, doc="Its name on the command line, or its class")
    environment: str = option(role=Role.TRAINING, doc="The environment's id, or its class")
    environment_parameters: Mapping[str, Any] = option(
        factory=dict, role=Role.TRAINING, doc="Those that were changed"
    )
    warm_start: str | None = option(
        default=None, role=Role.TRAINING, kind=Kind.TEXT, metavar="RUN",
        doc="Start from the agent and the statistics of observations that this run has learned "
        "(its first seed)",
    )  # fmt: skip


@options_class
class RunConfig(Origin):
    """A run, before anything is imported for it; config.json holds the same, flat.

    Attributes:
      training, options: what is trained and how it is followed.
    """

    hyper_parameters: Mapping[str, Any] = option(
        role=Role.TRAINING, doc="Those that were given, or all; as `registry.parse` reads them"
    )
    points: tuple[Mapping[str, Any], ...] = option(
        default=(), role=Role.SAMPLE, doc="Hyper-parameters to sweep, as for `fit`"
    )
    seeds: tuple[int, ...] = option(role=Role.SAMPLE, doc="Those of the members")
    key_type: str | None = option(
        default=None, role=Role.SAMPLE, doc="The generator of random numbers; None for jax's own"
    )
    training: TrainingOptions
    options: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def of_run(cls, path: Path | str) -> Self:
        """The configuration of the run in a directory.

        Raises:
          ValueError: there is no run, or one that was started from Python, of which config.json
            cannot know everything.
        """
        return cls.of_config(read_config(path), path)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], path: Path | str) -> Self:
        """What `config` says, which was read in `path`; see `of_run`."""
        by_class = {a.class_name: a.name for a in algorithms().values()}
        name = by_class.get(config["algorithm"], config["algorithm"])
        if not (name in algorithms() or ":" in name) or not (
            "/" in (env := config["environment"]) or ":" in env
        ):
            raise InvalidValue(
                f"{path} was started from Python, with {config['algorithm']} on "
                f"{config['environment']}: pass agent= and env= there"
            )
        return cls(
            algorithm=name,
            environment=env,
            environment_parameters=config["environment_parameters"],
            warm_start=config.get("warm_start"),
            hyper_parameters=parsed(algorithm(name), config["hyper_parameters"]),
            points=tuple(config.get("points", ())),
            seeds=tuple(seed % 2**32 for seed in config["seeds"]),  # the words of rbg repeat it
            key_type=config.get("key_type"),
            training=TrainingOptions.of(config),
            options=RunOptions.of(config),
        )

    def config(self) -> dict[str, Any]:
        """What config.json says of it, flat."""
        own = self.values()
        if not self.points:
            own.pop("points")
        return {**own, **self.training.settings(), **self.options.settings()}

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
            algorithm(self.algorithm).build(self.hyper_parameters),
            jaxrl_envs.make(self.environment, **self.environment_parameters),
            **self.training.settings(),
            agent_state=start,
        )
        sizes.check(training, num_seeds=len(self.seeds))
        keys = keys_of(self.seeds, self.key_type, vmapped=len(self.seeds) > 1)
        return Members.of(training, keys, self.points)


@options_class
class Records(Options):
    """What config.json says besides. The versions and the revision are the directory's to write."""

    vmapped: bool = option(role=Role.SAMPLE, doc="Whether arrays have an axis of members")
    device: str = option(role=Role.RECORD, doc="The kind of the first device")
    platform: str = option(role=Role.RECORD, doc="The backend of jax")
    schema_version: int | None = option(default=None, role=Role.RECORD, doc="Of config.json")
    versions: Mapping[str, str] | None = option(
        default=None, role=Role.RECORD, doc="Of Python and of the packages"
    )
    revision: Mapping[str, Any] | None = option(
        default=None, role=Role.RECORD, doc="The commit of the working directory"
    )


SCHEMA: Mapping[str, Option] = {
    name: option
    for options in (TrainingOptions, RunOptions, RunConfig, Records)
    for name, option in declared(options).items()
    if option.role is not Role.PYTHON
}
"""All that config.json holds."""


def role_of(name: str) -> Role:
    """The role of a name in config.json. One that is not ours is compared wherever it can be."""
    return SCHEMA[name].role if name in SCHEMA else Role.TRAINING


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config.json, with what it is too old to say."""
    assumed = {name: x.assumed for name, x in SCHEMA.items() if name not in config}
    return {**config, **{name: x for name, x in assumed.items() if x is not UNSET}}


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Phrases on what a resumed run has otherwise and may not, from its two config.json."""
    old_schema = then.get("schema_version") == 1  # whose algorithms had fewer hyper-parameters
    then, now = completed(then), completed(now)
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
    """Hyper-parameters as JSON has them, in the form that the command line reads.

    Raises:
      ValueError: one is an object of Python.
    """
    kinds = {flag.name: flag for flag in algorithm.flags}
    found = {}
    for name, value in described.items():
        flag = kinds.get(name)
        if flag is None:
            if value is not None:
                raise InvalidValue(f"{name} is an object of Python: pass agent= and env= there")
        elif flag.type == "bool" or flag.choices:
            found[name] = value
        else:
            found[name] = parse(flag.type, value_text(name, value))
    return found
