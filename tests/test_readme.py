"""The README's own programs run, in a small size."""

import json
import re
import tomllib
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def small(code):
    """The same program with a thousandth of the steps."""
    return re.sub(r"total_steps=\d+_000", "total_steps=600", code)


def test_the_python_examples_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 5
    names: dict = {}
    first, vmapped, own, exact, wrapped = map(small, blocks)
    first = first.replace("num_envs=64, num_steps=128", "num_envs=4, num_steps=8")
    exec(first + vmapped, names)
    assert names["metrics"].evaluation.returns.shape[0] == 8  # pole lengths
    exec(own.replace("PPO()", "PPO(num_steps=16)"), names)
    assert names["state"].agent is not None
    exec(exact, names)
    exec(wrapped, names)
    assert names["blind"].spec.observation.shape == (12,)
    printed = capsys.readouterr().out
    assert printed.startswith("[")
    assert printed.count("[[") == 1  # the exact gradient


def test_every_flag_and_name_the_readme_shows_exists(tmp_path, monkeypatch):
    """A file that is named holds the README's own settings."""
    from jaxrl.cli import parse_command_line

    monkeypatch.chdir(tmp_path)
    (settings,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    Path("cartpole.toml").write_text(settings)
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/config.json").write_text(json.dumps(tomllib.loads(settings)))
    for line in re.findall(
        r"^    jaxrl (train .*?)(?:  +#.*)?$", README.replace("\\\n", ""), re.MULTILINE
    ):
        arguments = line.split()
        if "--help" not in arguments:
            assert parse_command_line(arguments).algo == "ppo"
