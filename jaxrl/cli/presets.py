"""Tuned hyper-parameters by algorithm and environment, in presets.toml. It does not import jax."""

import functools
import tomllib
from pathlib import Path
from typing import Any


@functools.cache
def presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Settings by algorithm and environment, in the format of a `--config` file."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def preset(algorithm: str, environment: str) -> dict[str, Any]:
    """The settings for this pair; empty if there are none."""
    return dict(presets().get(algorithm, {}).get(environment, {}))
