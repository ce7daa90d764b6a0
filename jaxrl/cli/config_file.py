"""Files for `jaxrl train --config`: TOML, JSON, or the config.json of an earlier run.

Their settings are converted to command-line arguments and parsed like those, so that values and
errors are the same in both. It does not import jax.
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl.cli.option_flags import SETTINGS
from jaxrl.engine.options import declared
from jaxrl.errors import InvalidValue, did_you_mean
from jaxrl.registry import Algorithm, algorithms
from jaxrl.runs.directory import SCHEMA_VERSION, other_versions
from jaxrl.runs.disk import user_path
from jaxrl.runs.run_config import Records
from jaxrl.value_text import text_of_plain, value_text

RECORDS = (*declared(Records), "key_type")
"""Entries of config.json that are not settings."""
TABLES = {"hyper_parameters": "learning_rate = 1e-3", "environment_parameters": "length = 0.7"}
"""Settings that are tables, with an example."""
SHORT = {"algo": "algorithm", "env": "environment", "env_param": "environment_parameters"}
"""Names on the command line that differ from those in config.json."""
ALL = "jaxrl train ALGO --help lists them all"


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """The settings of one file.

    Attributes:
      path: the file.
      algorithm: name on the command line, or whatever the file has instead; None if missing.
      environment: id of the environment; None if missing.
      settings: all other flags, by name.
      environment_parameters: parameters of the environment to set.
      records: the entries that are not settings.
    """

    path: Path
    algorithm: str | None
    environment: str | None
    settings: Mapping[str, Any]
    environment_parameters: Mapping[str, Any]
    records: Mapping[str, Any]

    @property
    def key_type(self) -> str | None:
        """Random number generator of the earlier run; None for the default."""
        return self.records.get("key_type")

    @property
    def other_versions(self) -> str:
        """A text that lists versions that differ from the earlier run's; empty if none."""
        return other_versions(self.records.get("versions", {}))

    def words(self, algorithm: Algorithm) -> list[str]:
        """The settings as command-line arguments.

        Args:
          algorithm: its hyper-parameters may be set.

        Raises:
          ValueError: a name is unknown, or a flag cannot have a value.
        """
        return words_of(self.settings, self.environment_parameters, algorithm)


def words_of(
    settings: Mapping[str, Any], environment_parameters: Mapping[str, Any], algorithm: Algorithm
) -> list[str]:
    """Settings by name as command-line arguments; see `ConfigFile.words`."""
    kinds = {**SETTINGS, **{flag.name: flag.type == "bool" for flag in algorithm.flags}}
    words = []
    for name, value in settings.items():
        if name in algorithm.python_only:
            if value is not None:
                raise InvalidValue(f"{name} is a Python object: repeat that run in Python")
        elif name not in kinds:
            raise InvalidValue(f"unknown setting {name!r}: {did_you_mean(name, kinds, ALL)}")
        elif name == "seeds" and isinstance(value, list):
            words += _seeds(value)
        elif value is not None or name not in SETTINGS:
            words.append(_word(name, value, kinds[name]))
    for name, value in environment_parameters.items():
        if isinstance(value, list):
            value = json.dumps(value)
        if not isinstance(value, bool | int | float | str):
            raise InvalidValue(
                f"environment_parameters: {name} must be a number, true, false, text or a list"
            )
        words.append(f"--env-param={name}={text_of_plain(value)}")
    return words


def read(path: Path | str) -> ConfigFile:
    """Reads a file, whose format is given by its suffix.

    Raises:
      ValueError: it cannot be read, or is not a table of settings.
    """
    path = user_path(path)
    content = _content(path)
    settings: dict[str, Any] = {}
    for name, value in content.items():
        name = _normalized(name)
        parts = {name: value}
        if name == "hyper_parameters":
            parts = {_normalized(k): v for k, v in _table(path, name, value).items()}
        for part, v in parts.items():
            if part in settings:
                raise InvalidValue(f"{path}: {part} is given twice")
            settings[part] = v
    records = {name: settings.pop(name) for name in RECORDS if name in settings}
    if (version := records.get("schema_version", 1)) > SCHEMA_VERSION:
        raise InvalidValue(
            f"{path}: schema_version is {version}, but this jaxrl reads up to {SCHEMA_VERSION}: "
            "use the jaxrl that wrote it"
        )
    for name in ("algorithm", "environment"):
        if not isinstance(settings.get(name, ""), str):
            raise InvalidValue(f"{path}: {name} must be text")
    changed = settings.pop("environment_parameters", {})
    written = settings.pop("algorithm", None)  # runs started from Python store the class name
    by_class = {a.class_name: a.name for a in algorithms().values()}
    return ConfigFile(
        path,
        by_class.get(written, written),
        settings.pop("environment", None),
        settings,
        _table(path, "environment_parameters", changed),
        records,
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidValue(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidValue(f"cannot read {path}: it is not text") from None
    if path.suffix not in (".toml", ".json"):
        raise InvalidValue(f"{path}: the file must end in .toml or .json")
    try:
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise InvalidValue(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(content, dict):
        raise InvalidValue(f"{path} contains a {type(content).__name__}: write names and values")
    return content


def _normalized(name: str) -> str:
    name = name.replace("-", "_")
    return SHORT.get(name, name)


def _table(path: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"{path}: {name} must be a table, such as {{{TABLES[name]}}}")
    return value


def _word(name: str, value: Any, switch: bool) -> str:
    flag = name.replace("_", "-")
    if switch:
        if not isinstance(value, bool):
            raise InvalidValue(f"{name} is {value!r}: it must be true or false")
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag}={value_text(name, value)}"


def _seeds(seeds: list[Any]) -> list[str]:
    """A run's seeds as their first and their number."""
    if not seeds or seeds != [*range(seeds[0], seeds[0] + len(seeds))]:
        raise InvalidValue(f"seeds is {seeds}: give their number, and the first one as seed")
    return [f"--seed={seeds[0]}", f"--seeds={len(seeds)}"]
