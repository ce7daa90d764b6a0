"""Contents and requirements of the installed package. Needs no network."""

import ensurepip
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CUDA = ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt")


# The metadata -------------------------------------------------------------------------------------


def test_extras_agree_with_each_other_and_with_the_bounds():
    (jax,) = (r for r in PROJECT["dependencies"] if r.startswith("jax>"))
    assert EXTRAS["cuda12"] == [jax.replace("jax", "jax[cuda12]", 1)]
    assert set(EXTRAS["brax"]) <= set(EXTRAS["dev"])
    for requirement in (*PROJECT["dependencies"], *(r for e in EXTRAS.values() for r in e)):
        assert ">=" in requirement, "without a lower bound that CI proves"


def test_citation_matches_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


# An installed CUDA jax ----------------------------------------------------------------------------


def metadata(name, version, requirements=()):
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {r}" for r in requirements), ""])


def of_project():
    """Requirements in the metadata of a wheel built from this checkout."""
    extras = [
        f"{r} and {marker}" if ";" in r else f"{r}; {marker}"
        for extra, needs in EXTRAS.items()
        for r, marker in ((need, f'extra == "{extra}"') for need in needs)
    ]
    text = metadata("jaxrl", PROJECT["version"], [*PROJECT["dependencies"], *extras])
    return text + "".join(f"Provides-Extra: {extra}\n" for extra in EXTRAS)


def stub_wheel(folder, text):
    """A wheel that contains only metadata."""
    name, version = (re.search(rf"^{f}: (.*)$", text, re.M)[1] for f in ("Name", "Version"))
    stem = f"{re.sub('[-_.]+', '_', name)}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", text)
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A package index with this project, all packages of this environment, and a newer jax."""
    folder = tmp_path_factory.mktemp("wheels")
    for distribution in importlib.metadata.distributions():
        text = distribution.read_text("METADATA")
        if text and distribution.name.lower() != "jaxrl":
            stub_wheel(folder, text)
    stub_wheel(folder, of_project())
    for name in CUDA:
        stub_wheel(folder, metadata(name, "0.11.99"))
    return folder


def pip():
    """pip of this environment, or the one bundled with Python."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    bundled = list((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if not bundled:
        pytest.skip("there is no pip")
    return [sys.executable, str(bundled[0] / "pip")]


def would_install(tmp_path, wheels, what, jax_version):
    """Packages that pip would install into an environment with a CUDA jax, with versions."""
    home = tmp_path / "colab"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=120)
    (packages,) = home.glob("lib/python*/site-packages")
    for name in CUDA:
        info = packages / f"{name.replace('-', '_')}-{jax_version}.dist-info"
        info.mkdir()
        needs = [f"jaxlib=={jax_version}"] if name == "jax" else []
        (info / "METADATA").write_text(metadata(name, jax_version, needs))
    report = tmp_path / "report.json"
    run = subprocess.run(
        [*pip(), "--isolated", "--python", home / "bin" / "python", "install", "--dry-run",
         "--no-index", "--find-links", wheels, "--report", report, what],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    entries = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {entry["name"].lower(): entry["version"] for entry in entries}


def test_a_cuda_jax_within_the_bounds_is_left_alone(tmp_path, wheels):
    """As on Colab: a jax with GPU support must not be replaced."""
    what = "jaxrl[brax]" if list(wheels.glob("brax-*")) else "jaxrl"
    installed = would_install(tmp_path, wheels, what, importlib.metadata.version("jax"))
    assert not {*CUDA} & {*installed}
    assert {"jaxrl", "flax", "optax", "gymnax", "orbax-checkpoint"} <= {*installed}
    assert ("brax" in installed) == (what == "jaxrl[brax]")


def test_a_jax_below_the_bounds_is_replaced(tmp_path, wheels):
    """Shows that the test above can fail."""
    installed = would_install(tmp_path, wheels, "jaxrl", "0.10.1")
    assert installed["jax"] == "0.11.99"
