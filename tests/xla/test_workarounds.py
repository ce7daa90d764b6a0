"""Each workaround documents why it exists and when to delete it, and can be measured again."""

import ast
import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT

FILES = sorted(p.stem for p in (ROOT / "jaxrl" / "xla").glob("*.py") if p.stem != "__init__")
PARTS = ["Works around", "Versions", "Measured", "Delete when"]


def docstring(path):
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", FILES)
def test_workaround_docstrings_have_all_sections(name):
    title, *paragraphs = docstring(ROOT / "jaxrl" / "xla" / f"{name}.py").split("\n\n")
    assert title.endswith(".")
    assert [paragraph.partition(":")[0] for paragraph in paragraphs] == PARTS
    assert f"python -m benchmarks.workarounds {name}`" in paragraphs[2]


def test_the_command_knows_every_workaround():
    """Without a name it measures all that it lists; each names the code that it measures."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.workarounds", "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    listed = [line.split()[0] for line in run.stdout.splitlines()]
    assert set(FILES) <= set(listed), run.stderr
    for name in listed:
        text = docstring(ROOT / "benchmarks" / "workarounds" / f"{name}.py")
        files = re.findall(r"`(jaxrl/[\w/]+\.py)`", text)
        assert files, name
        assert all((ROOT / file).is_file() for file in files), files
        assert (f"jaxrl/xla/{name}.py" in files) == (name in FILES)


def test_unknown_workaround_is_rejected():
    command = [sys.executable, "-m", "benchmarks.workarounds", "colums"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert "unknown workaround 'colums': use one of blocks, columns" in run.stderr
