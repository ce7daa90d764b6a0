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
    """The settings for this pair, or for the same task of another library; empty if there are none.

    Tasks of gymnasium and EnvPool that gymnax has too are the same; Atari has settings for all
    games.
    """
    family, _, name = environment.partition("/")
    same = {
        "gymnasium": (f"gymnax/{name}",),
        "envpool": (f"gymnax/{name}", "ale/*" if name.endswith("-v5") else ""),
        "ale": ("ale/*",),
    }
    settings = presets().get(algorithm, {})
    for task in (environment, *same.get(family, ())):
        if task in settings:
            return dict(settings[task])
    return {}
