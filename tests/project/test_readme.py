"""The code in the README runs, at a small size."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import DATA, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def small(code):
    """The same program with a thousandth of the steps."""
    return re.sub(r"total_steps=\d+_000", "total_steps=600", code)


@pytest.mark.thorough
def test_the_python_examples_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 7
    names: dict = {}
    loaded, first, vmapped, hosted, own, exact, wrapped = map(small, blocks)
    shutil.copytree(DATA / "run_schema_1", "runs/x")
    exec("import jaxrl\n" + loaded, names)
    assert names["policy"](np.zeros((3, 4))).shape == (3,)
    first = first.replace("num_envs=64, num_steps=128", "num_envs=4, num_steps=8")
    exec(first + vmapped, names)
    assert names["metrics"].evaluation.returns.shape[0] == 8  # pole lengths
    names["agent"] = names["agent"].replace(num_epochs=1, num_minibatches=1)  # two more programs
    exec(hosted.replace("keys,", "keys[:2],"), names)
    assert names["result"].evaluations[-1].returns.shape[0] == 4  # 2 configurations, 2 seeds
    assert Path("runs/mine/summary.json").exists()
    exec(own.replace("PPO()", "PPO(num_steps=16)"), names)
    assert names["state"].agent is not None
    exec(exact, names)
    exec(wrapped, names)
    assert names["blind"].spec.observation.shape == (12,)
    printed = capsys.readouterr().out
    assert printed.startswith("[")
    assert printed.count("[[") == 1  # the exact gradient


@pytest.mark.thorough
def test_the_example_of_host_environments_runs():
    text = (ROOT / "docs" / "host_environments.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(small(block), names)
    assert names["result"].evaluations[-1].returns.shape == (1, 4)


def test_flags_and_names_in_the_readme_exist(tmp_path, monkeypatch):
    """Configuration files in the commands contain the README's own settings."""
    from jaxrl.cli.command_line import parse_command_line

    monkeypatch.chdir(tmp_path)
    (settings,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    Path("cartpole.toml").write_text(settings)
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/config.json").write_text(json.dumps(tomllib.loads(settings)))
    lines = re.findall(r"^    jaxrl (.*?)(?:  +#.*)?$", README.replace("\\\n", ""), re.MULTILINE)
    verbs = {line.split()[0] for line in lines}
    assert {"train", "resume", "sweep", "plot", "compare", "evaluate", "export"} <= verbs
    for line in lines:
        arguments = line.split()
        if "--help" not in arguments:
            options = parse_command_line(arguments)
            assert getattr(options, "algo", "ppo") == "ppo"
