"""Environment parameters are converted to their types, on the command line and in Python."""

import enum
import json
import re
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.commands import run_in_process
from helpers.environments import Counter

from jaxrl.cli.command_line import parse_command_line
from jaxrl.cli.config_file import words_of
from jaxrl.cli.train import _env_param, run_config_of
from jaxrl.registry import algorithms
from jaxrl.runs.run_config import RunConfig
from jaxrl.runs.run_options import RunOptions
from jaxrl.types import static
from jaxrl.value_text import plain_value
from jaxrl_envs import make
from jaxrl_envs.parameters import fitted


def annotated(
    pays: bool, size: int, scale: float, name: str, limit: int | None, range: tuple[float, float]
):
    """An environment factory with annotated parameters."""


def postponed(pays: "bool", size: "int", scale: "float", unknown: "Nowhere"):  # noqa: F821
    """String annotations, one of which cannot be resolved."""


def by_default(pays=False, size=3, scale=0.5, name="a", limit=None, range=(0.0, 1.0)):
    """Defaults without annotations."""


def of_arrays(means: Sequence[float] = (0.0,), **others):
    """A sequence parameter and `**others`."""


def given(function, text):
    """The value that `function` receives for `NAME=VALUE` on the command line."""
    return next(iter(fitted(function, dict([_env_param(text)]), "it").values()))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((f"pays={word}", False) for word in ("False", "false", "FALSE", "0")),
        *((f"pays={word}", True) for word in ("True", "true", "1")),
        ("size=7", 7),
        ("size=1e1", 10),
        ("scale=2", 2),
        ("scale=1e-3", 0.001),
        ("name=true story", "true story"),
        ('name="007"', "007"),
        ('name="true"', "true"),
        ("limit=none", None),
        ("limit=4", 4),
        ("range=[0.5,2]", (0.5, 2)),
        ("range=(0.5, 2)", (0.5, 2)),
    ],
)
@pytest.mark.parametrize("function", [annotated, by_default])
def test_values_are_converted_to_the_declared_type(function, text, value):
    found = given(function, text)
    assert found == value
    assert type(found) is type(value) or (function is by_default and text == "size=1e1")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pays=no", "give true or false, for example pays=true"),
        ("pays=2", "give true or false"),
        ("pays=none", "give true or false"),
        ("size=true", "give a whole number, for example size=5"),
        ("size=1.5", "give a whole number"),
        ("size=many", "give a whole number"),
        ("scale=false", "give a number, for example scale=0.5"),
        ("scale=[1,2]", "give a number"),
        ("name=007", "give a text, for example name='\"text\"'"),
        ("name=false", "give a text"),
        ("limit=some", "give a whole number or none"),
        ("range=0.5", "give a list of numbers, for example range=[0,1]"),
        ("range=[1,[2,3]]", "give a list of numbers"),
        ('range=["a"]', "give a list of numbers"),
        ("range=[1,", "give a list of numbers"),
    ],
)
def test_wrong_types_are_rejected(text, wanted):
    with pytest.raises(ValueError, match=r"^it cannot be made with \w+=") as caught:
        given(annotated, text)
    assert wanted in str(caught.value)


class Mode(enum.Enum):
    EASY = 1
    HARD = 2


def of_choices(wind: Literal["none", "strong"], floors: Literal[1, 3] | None, mode: Mode = None):
    """`Literal` and enum parameters."""


def test_literals_and_enums_accept_only_their_members():
    for text, value in [
        ("wind=strong", "strong"), ("wind=none", "none"), ("floors=3", 3), ("floors=none", None),
        ("mode=hard", Mode.HARD), ("mode=none", None),
    ]:  # fmt: skip
        assert given(of_choices, text) == value
    assert fitted(of_choices, {"mode": Mode.EASY}, "it") == {"mode": Mode.EASY}
    for text, choices in [
        ("wind=weak", "none or strong"), ("floors=2", "1 or 3 or none"), ("floors=true", "1 or 3"),
        ("mode=1", "EASY or HARD or none"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^it cannot be made with {text[:4]}.*give {choices}"):
            given(of_choices, text)


def test_untyped_values_are_inferred_from_their_text():
    def free(**params):
        pass

    for function in (free, of_arrays, dict, print):
        for text, value in [
            ("a=true", True), ("a=False", False), ("a=3", 3), ("a=2.5", 2.5), ("a=none", "none"),
            ("a=[1,2]", "[1,2]"), ('a="3"', "3"), ('a="', '"'), ('a="x', '"x'), ("a=+5", 5),
        ]:  # fmt: skip
            found = given(function, text)
            assert found == value
            assert type(found) is type(value)
    assert given(of_arrays, "means=[1,2]") == (1, 2)
    assert given(postponed, "unknown=1") == 1
    assert given(postponed, "pays=false") is False


def test_arrays_and_objects_pass_unchanged():
    array, obj = jnp.ones(3), object()
    params = {"pays": np.bool_(True), "size": array, "scale": np.float32(0.5), "name": obj}
    assert fitted(annotated, params, "it") == params


@pytest.mark.parametrize(
    "value", [True, False, 3, -7, 2.5, 1e-7, 1e30, "word", "true", "none", "7", "1e400", "nan",
              '"quoted"', '"', "", "ünicode", "[0, 1]"],
)  # fmt: skip
def test_config_values_round_trip_through_the_command_line(value):
    """As when a run is repeated from its config.json."""
    value = json.loads(json.dumps(value))
    (word,) = words_of({}, {"name": value}, algorithms()["ppo"])
    parsed = parse_command_line(["train", "ppo", "gymnax/CartPole-v1", word])
    ((_, found),) = parsed.env_param
    assert found == value
    assert type(found) is type(value)


def test_config_list_reaches_the_environment():
    (word,) = words_of({}, {"means": [0, 0.5]}, algorithms()["ppo"])
    assert word == "--env-param=means=[0, 0.5]"
    env = make("jaxrl/bandit", means=plain_value("[0, 0.5]"))
    np.testing.assert_array_equal(env.means, np.float32([0, 0.5]))


def recipe_of(*words):
    return run_config_of(parse_command_line(["train", "ppo", *words]))


@pytest.mark.parametrize("word", ["False", "false", "True", "true"])
def test_a_boolean_reaches_the_environment(tmp_path, word):
    """From the command line, from TOML and from the config.json of a run."""
    wanted = np.eye(5)[4] * (word.lower() == "true")  # the last cell terminates, or none does
    run_config = recipe_of("jaxrl/corridor", "--env-param", f"terminal_goal={word}")
    (tmp_path / "run.toml").write_text(
        f'environment = "jaxrl/corridor"\n[environment_parameters]\nterminal_goal = {word.lower()}'
    )
    assert run_config == recipe_of("--config", str(tmp_path / "run.toml"))
    config = run_config.config()
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = RunConfig.of_run(tmp_path)
    assert again.environment_parameters == {"terminal_goal": word.lower() == "true"}
    for built in (run_config, again, recipe_of("--config", str(tmp_path / "config.json"))):
        env = make(built.environment, **built.environment_parameters)
        np.testing.assert_array_equal(env.termination, wanted)
    assert run_config.options == RunOptions(num_evaluations=20)


def test_boolean_reaches_a_user_environment():
    assert make(f"{__name__}:Payer", pays=plain_value("False")).pays is False
    with pytest.raises(ValueError, match=r":Payer cannot be made with pays='no': give true or fa"):
        make(f"{__name__}:Payer", pays=plain_value("no"))


class Payer(Counter):
    """An environment with a boolean field."""

    pays: bool = static(default=True)


REFUSED = {
    "gymnax/FourRooms-misc": ("resample_init_pos=no", "give true or false"),
    "gymnax/CartPole-v1": ("length=true", "give a number, for example length=0.5"),
    "gymnax/Pendulum-v1": ("dt=1e300", "dt is 1e+300: it must be finite and fit into float32"),
    "gymnax/Acrobot-v1": (
        "max_steps_in_episode=99999999999",
        "it must be finite and fit into int32",
    ),
    "brax/hopper": ("terminate_when_unhealthy=no", "give true or false"),
    "brax/inverted_pendulum": ("mass_scale=true", "give a number"),
    "jumanji/LevelBasedForaging-v0": ("normalize_reward=no", "give true or false"),
    "jumanji/Snake-v1": ("time_limit=none", "give a whole number"),
    "craftax/Craftax-Symbolic-v1": ("god_mode=no", "give true or false"),
    "navix/Navix-Empty-5x5-v0": ("max_steps=none", "give a whole number"),
    "jaxrl/corridor": ("terminal_goal=no", "give true or false"),
    "jaxrl/bandit": ("means=1,2", "give a list of numbers, for example means=[0,1]"),
    "jaxrl/garnet": ("num_states=1e9", "cannot be made with num_states=1000000000: "),
}


@pytest.mark.parametrize("env_id", REFUSED)
def test_every_family_rejects_wrong_types(env_id):
    text, wanted = REFUSED[env_id]
    with pytest.raises(ValueError, match=re.escape(wanted)) as caught:
        make(env_id, **dict([_env_param(text)]))
    assert "\n" not in str(caught.value)


def test_gymnax_boolean_and_array_parameters():
    assert make("gymnax/FourRooms-misc", resample_init_pos=True).params.resample_init_pos == True  # noqa: E712
    torques = make("gymnax/Acrobot-v1", available_torque="[-2,0,2]").params.available_torque
    np.testing.assert_array_equal(torques, [-2, 0, 2])


def test_help_documents_value_parsing():
    _, out, _ = run_in_process("train", "ppo", "--help")
    helped = " ".join(" ".join(out).split())
    assert "it is a number, true, false or otherwise text" in helped
