"""`jaxrl doctor`: describes the machine and diagnoses known problems.

`probe` collects facts, `examine` turns them into findings, `report` formats both. Only `probe`
imports jax.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from jaxrl.devices import machine
from jaxrl.runs.directory import PACKAGES
from jaxrl.xla import deadlock
from jaxrl_envs.libraries import EXTRAS, extra_of

SHOWN = (*PACKAGES, "orbax-checkpoint", "matplotlib", "six")
SUPPORTED_PYTHONS = ((3, 11), (3, 12))
WHY = {
    "gymnax": "before 1.0.1 its step returned five values instead of six",
    "six": "gymnax imports it without declaring it",
}
"""Why a package, or a version of it, is needed."""


@dataclasses.dataclass(frozen=True)
class Host:
    """Facts about the machine.

    Attributes:
      python: Python version.
      system: operating system and architecture.
      versions: installed package versions; None if missing.
      requirements: requirements of jaxrl, such as "jax<0.12,>=0.10.2".
      devices: names of jax's devices; empty if jax does not start.
      backend: "cpu", "gpu" or "tpu".
      failure: why jax does not start; empty if it does.
      environment: relevant environment variables.
      has_cuda_gpu: whether the operating system sees a CUDA GPU.
      cores: cores available to this process.
      memory: bytes; None if unknown.
      deadlock: whether batched LAPACK calls can hang with this jaxlib on this machine.
      x64: whether `jax_enable_x64` is on.
    """

    python: tuple[int, ...]
    system: str
    versions: Mapping[str, str | None]
    requirements: tuple[str, ...]
    devices: tuple[str, ...]
    backend: str
    failure: str
    environment: Mapping[str, str]
    has_cuda_gpu: bool
    cores: int
    memory: int | None
    deadlock: bool
    x64: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """A finding, its fix, and whether it blocks training."""

    what: str
    fix: str = ""
    blocking: bool = False

    @property
    def label(self) -> str:
        return "PROBLEM" if self.blocking else "note" if self.fix else "fine"


VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", deadlock.OPT_OUT)


# Facts --------------------------------------------------------------------------------------------


def probe() -> Host:
    """Collects facts about this process, its packages and its devices; starts jax."""
    requirements = tuple(
        r for r in importlib.metadata.requires("jaxrl") or () if "extra ==" not in r
    )
    names = dict.fromkeys([*SHOWN, *(_parts(r)[0] for r in requirements)])
    devices: tuple[str, ...] = ()
    backend = failure = ""
    x64 = False
    try:
        import jax

        devices = tuple(f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices())
        backend, x64 = jax.default_backend(), bool(jax.config.jax_enable_x64)
    except Exception as error:  # reported to the user, whatever it is
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
    return Host(
        python=tuple(map(int, platform.python_version_tuple()[:2])),
        system=f"{platform.system()} {platform.machine()}",
        versions={name: _version(name) for name in names},
        requirements=requirements,
        devices=devices,
        backend=backend,
        failure=failure,
        environment={name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        has_cuda_gpu=Path("/proc/driver/nvidia/version").exists()
        or shutil.which("nvidia-smi") is not None,
        cores=machine.cores(),
        memory=_memory(),
        deadlock=deadlock.is_affected(),
        x64=x64,
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> int | None:
    """Memory of the machine or of the container, in bytes."""
    sizes = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes, default=None)


# Findings -----------------------------------------------------------------------------------------


def examine(seen: Host) -> list[Finding]:
    """All findings, good and bad."""
    return [
        _python(seen),
        *_packages(seen),
        _start(seen),
        _gpu(seen),
        _deadlock(seen),
        *_precision(seen),
        *(_library(seen, *family) for family in EXTRAS.items()),
    ]


def _python(seen: Host) -> Finding:
    shown = ".".join(map(str, seen.python))
    supported = " and ".join(".".join(map(str, version)) for version in SUPPORTED_PYTHONS)
    if seen.python < SUPPORTED_PYTHONS[0]:
        return Finding(f"Python {shown} is too old", f"use Python {supported}", blocking=True)
    if seen.python > SUPPORTED_PYTHONS[-1]:
        return Finding(f"jaxrl is not tested on Python {shown}", f"use Python {supported}")
    return Finding(f"Python {shown} is supported")


def _packages(seen: Host) -> list[Finding]:
    """A finding for each package that is missing or out of range, or one if all are fine."""
    found = []
    for requirement in seen.requirements:
        name, bounds = _parts(requirement)
        version = seen.versions.get(name)
        why = f" ({WHY[name]})" if name in WHY else ""
        fix = f"pip install '{name}{','.join(a + b for a, b in bounds)}'"
        if version is None:
            found.append(Finding(f"{name} is missing{why}", fix, blocking=True))
        elif any(not _holds(version, *bound) for bound in bounds if bound[0].startswith(">")):
            found.append(Finding(f"{name} {version} is too old{why}", fix, blocking=True))
        elif any(not _holds(version, *bound) for bound in bounds):
            found.append(Finding(f"{name} {version} is newer than what jaxrl supports", fix))
    return found or [Finding("all packages are installed in supported versions")]


def _start(seen: Host) -> Finding:
    if seen.failure:
        fix = "pip install --upgrade --force-reinstall jax jaxlib, or look at JAX_PLATFORMS"
        return Finding(f"jax does not start: {seen.failure}", fix, blocking=True)
    return Finding(f"jax starts on {len(seen.devices)} x {seen.backend}")


def _gpu(seen: Host) -> Finding:
    if not seen.has_cuda_gpu:
        return Finding("there is no CUDA GPU")
    if seen.backend != "cpu":
        return Finding(f"jax uses the GPU: its backend is {seen.backend}")
    asked = seen.environment.get("JAX_PLATFORMS", "")
    fix = f"unset JAX_PLATFORMS ({asked})" if asked else "pip install 'jaxrl[cuda12]'"
    return Finding("there is a CUDA GPU, but jax uses the CPU", fix)


def _deadlock(seen: Host) -> Finding:
    """See `jaxrl.xla.deadlock`."""
    if not seen.deadlock:
        return Finding("this jaxlib has no known deadlock on this machine")
    if f"{deadlock.FLAG}=false" in seen.environment.get("XLA_FLAGS", "").split():
        return Finding("XLA_FLAGS works around this jaxlib's deadlock in batched LAPACK calls")
    return Finding(
        "batched LAPACK calls can hang with this jaxlib on so few cores; jaxrl itself makes none",
        f"for environments that make them, set XLA_FLAGS to {deadlock.FLAG}=false",
    )


def _precision(seen: Host) -> list[Finding]:
    """See `jaxrl.xla.precision`."""
    if not seen.x64:
        return []
    return [Finding("jax_enable_x64 is on, but jaxrl trains in float32 anyway")]


def _library(seen: Host, family: str, package: str) -> Finding:
    if seen.versions.get(package) is None:
        fix = f"pip install 'jaxrl[{extra_of(family)}]'"
        return Finding(f"{package} is missing: no {family}/... environments", fix)
    return Finding(f"{package} is installed, for {family}/... environments")


def _parts(requirement: str) -> tuple[str, list[tuple[str, str]]]:
    """Parses `jax<0.12,>=0.10.2` into its name and [("<", "0.12"), (">=", "0.10.2")]."""
    name, rest = re.match(r"([\w.-]+)(?:\[.*?\])?([^;]*)", requirement).groups()  # type: ignore[union-attr]
    return name, re.findall(r"([<>=!~]=?)\s*([\w.]+)", rest)


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version or "")[:3])


def _holds(version: str, relation: str, bound: str) -> bool:
    ours, theirs = ((*_numbers(v), 0, 0, 0)[:3] for v in (version, bound))
    match relation:
        case ">=":
            return ours >= theirs
        case ">":
            return ours > theirs
        case "<":
            return ours < theirs
        case "<=":
            return ours <= theirs
        case "!=":
            return ours != theirs
    return True  # other relations do not occur in our requirements


# Report -------------------------------------------------------------------------------------------


def report(seen: Host, findings: list[Finding]) -> list[str]:
    """The lines that `jaxrl doctor` prints."""
    facts = {
        "python": f"{'.'.join(map(str, seen.python))} on {seen.system}",
        **{name: version or "missing" for name, version in seen.versions.items()},
        "devices": ", ".join(seen.devices) or "none",
        "cores": str(seen.cores),
        "memory": "unknown" if seen.memory is None else f"{seen.memory / 2**30:.1f} GiB",
        **{name: seen.environment.get(name, "not set") for name in VARIABLES},
    }
    width = max(map(len, facts))
    blocking = sum(finding.blocking for finding in findings)
    return [
        *(f"{name:<{width}}  {text}" for name, text in facts.items()),
        "",
        *(f"{f.label:<8} {f.what}{f.fix and f': {f.fix}'}" for f in findings),
        "",
        f"{blocking} problem{'s' if blocking > 1 else ''} that would prevent training"
        if blocking
        else "no problems that would prevent training",
    ]
