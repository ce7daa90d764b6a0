"""Flags parsed from the source match the hyper-parameters of the classes."""

import ast
import dataclasses
import importlib
import inspect
import typing

import pytest

from jaxrl import agents, schedules
from jaxrl.hyper import declarations
from jaxrl.networks.layers import Activation
from jaxrl.networks.recurrent import CoreName
from jaxrl.optimizers import OptimizerName
from jaxrl.registry import AGENTS, SHOWN_TYPES, algorithms
from jaxrl.value_text import SCHEDULES, ScheduleText, finite_number, parse, whole_number

ALGORITHMS = algorithms()


def real_class(algorithm):
    return getattr(importlib.import_module(algorithm.module), algorithm.class_name)


def test_every_public_agent_is_an_algorithm():
    assert {a.class_name for a in ALGORITHMS.values()} == set(agents.__all__)
    for name, algorithm in ALGORITHMS.items():
        assert algorithm.name == name
        assert getattr(agents, algorithm.class_name) is real_class(algorithm)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_flags_are_the_fields_with_their_defaults_in_order(name):
    """The fields of the class come first, then those of its bases, each where first defined."""
    algorithm = ALGORITHMS[name]
    cls = real_class(algorithm)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    order = [
        field
        for base in cls.__mro__
        if base.__module__.startswith("jaxrl.agents.")
        for field in inspect.get_annotations(base)
    ]
    flags = {flag.name: flag for flag in algorithm.flags}
    assert list(flags) == [field for field in dict.fromkeys(order) if field in flags]
    for flag in flags.values():
        default = flag.default
        default = default.build() if isinstance(default, ScheduleText) else default
        assert default == fields[flag.name].default
        assert type(default) is type(fields[flag.name].default)
        assert flag.type in SHOWN_TYPES or flag.choices
        declared = declarations(cls)[flag.name]
        assert flag.help == declared.doc
        assert (flag.low, flag.high, flag.open_low) == (
            declared.low, declared.high, declared.open_low,
        )  # fmt: skip
    for field in set(order) & set(fields) - set(
        flags
    ):  # objects, which a command line cannot build
        assert fields[field].default is None
        assert "Scalar" not in str(fields[field].type)
        assert "tuple" not in str(fields[field].type)
    assert algorithm.summary == cls.__doc__.split("\n")[0]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_flags_are_documented_and_their_defaults_parse(name):
    assert ALGORITHMS[name].summary.endswith(".")
    for flag in ALGORITHMS[name].flags:
        assert flag.help.endswith("."), flag.name
        assert flag.help[0].isupper(), flag.name
        if flag.choices:
            assert str(flag.default or "none") in flag.choices
        elif flag.type != "bool":
            default = flag.default
            text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            assert parse(flag.type, text) == default


def test_choices_match_the_annotation():
    flags = {flag.name: flag for flag in ALGORITHMS["ppo"].flags}
    assert flags["activation"].choices == typing.get_args(Activation)
    assert flags["core"].choices == typing.get_args(CoreName)
    assert flags["discount"].choices is None


def test_a_choice_may_be_none():
    flag = next(flag for flag in ALGORITHMS["ppo"].flags if flag.name == "optimizer")
    assert flag.choices == (*typing.get_args(OptimizerName), "none")
    built = [ALGORITHMS["ppo"].build({"optimizer": x}).optimizer for x in ("none", "adamw", None)]
    assert built == [None, "adamw", None]
    assert ALGORITHMS["ppo"].build({"core": "none"}).core == "none"


def test_ranges_are_shown():
    flags = {flag.name: flag for flag in ALGORITHMS["td3"].flags}
    ranges = {name: flags[name].range for name in ("tau", "discount", "target_noise", "n_step")}
    assert ranges == {
        "tau": "above 0, at most 1", "discount": "0 to 1", "target_noise": "at least 0",
        "n_step": "",
    }  # fmt: skip
    assert flags["num_critics"].range == "at most 1000"


def test_every_scalar_field_has_a_flag():
    """The command line must know the type of each."""
    for path in AGENTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and "Scalar" in ast.unparse(node.annotation):
                assert ast.unparse(node.annotation) in SHOWN_TYPES


def test_schedules_take_as_many_numbers_as_their_classes():
    assert {name.capitalize() for name in SCHEDULES} == {
        kind.__name__ for kind in typing.get_args(schedules.Schedule)
    }
    for name, (least, most) in SCHEDULES.items():
        fields = dataclasses.fields(getattr(schedules, name.capitalize()))
        assert most == len(fields)
        assert least == sum(f.default is dataclasses.MISSING for f in fields)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "8", 8),
        ("int", "5e5", 500_000),
        ("int", "500_000", 500_000),
        ("int", "9007199254740993", 9007199254740993),
        ("int | None", "none", None),
        ("int | None", "4", 4),
        ("Scalar", "1e-3", 1e-3),
        ("Scalar | None", "None", None),
        ("Scalar | None", "0.5", 0.5),
        ("Scheduled", "3e-4", 3e-4),
        ("Scheduled | None", "linear:1", ScheduleText("linear", (1.0,))),
        ("Scheduled | None", "none", None),
        ("Scheduled", "linear:1:0:0.5", ScheduleText("linear", (1.0, 0.0, 0.5))),
        ("tuple[int, ...]", "64", (64,)),
        ("tuple[int, ...]", "256,256", (256, 256)),
        ("str", "any thing", "any thing"),
    ],
)
def test_text_is_parsed_by_type(kind, text, value):
    assert parse(kind, text) == value
    assert type(parse(kind, text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("int", "1.5", "'1.5' is not a whole number"),
        ("int", "eight", "'eight' is not a number"),
        ("int", "none", "'none' is not a number"),
        ("int", "inf", "not a finite number"),
        ("Scalar", "none", "'none' is not a number"),
        ("Scalar", "nan", "'nan' is not a finite number"),
        ("Scalar | None", "-inf", "'-inf' is not a finite number"),
        ("Scheduled", "step:1:2", "is not a schedule"),
        ("Scheduled", "linear", "'linear' is not a number"),
        ("Scheduled", "exponential:1", "exponential takes 2 numbers"),
        ("Scheduled", "linear:1:2:3:4", "linear takes 1 to 3 numbers"),
        ("Scheduled", "linear:1:nan", "'nan' is not a finite number"),
        ("tuple[int, ...]", "64,", "'' is not a number"),
    ],
)
def test_invalid_text_is_rejected(kind, text, message):
    with pytest.raises(ValueError, match=message):
        parse(kind, text)


def test_numbers():
    assert whole_number("1e3") == 1000
    assert finite_number("-2.5") == -2.5


def test_schedule_text_builds_a_schedule():
    assert ScheduleText("linear", (1.0, 0.5)).build() == schedules.Linear(1.0, 0.5)
    assert ScheduleText("exponential", (1.0, 0.5)).build() == schedules.Exponential(1.0, 0.5)
