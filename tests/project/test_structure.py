"""Structure of the code base: layers, import cycles, length of files."""

import ast
import graphlib
import inspect
import re

import pytest
from helpers.agents.cross_entropy import CrossEntropy
from helpers.agents.fitted_q import FittedQ
from helpers.agents.masked import MaskedActorCritic
from helpers.agents.q_learning import QLearning
from helpers.agents.recurrent import RecurrentPolicyGradient
from helpers.agents.workers import Workers
from helpers.paths import ROOT
from helpers.sources import imports

PACKAGES = {"jaxrl": ROOT / "jaxrl", "jaxrl_envs": ROOT / "envs" / "jaxrl_envs"}
SOURCES = {
    ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path.read_text(encoding="utf-8")
    for package, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
}
FLOORS = (
    "devices errors spaces types trees validation xla",
    "agent environment distributions estimators hyper losses minibatches networks normalization "
    "optimizers replay schedules solvers value_text wrappers",
    "agents",
    "engine",
    "registry runs analysis",
    "cli __main__",
)
"""Layers of jaxrl; each imports only from itself and from earlier ones in this list."""
FLOOR = {part: i for i, parts in enumerate(FLOORS) for part in parts.split()}


def imported(module):
    """Modules of this repository that `module` imports, at any level."""
    found = imports(SOURCES[module])
    # `from jaxrl.runs import disk` imports `jaxrl.runs.disk`, not its package
    return {x for x in found if x in SOURCES and not any(y.startswith(f"{x}.") for y in found)}


def test_there_are_no_import_cycles():
    graph = {module: imported(module) - {module} for module in SOURCES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"an import leads back to where it began: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", [m for m in SOURCES if m.startswith("jaxrl.")])
def test_imports_point_one_way(module):
    floor = FLOOR[module.split(".")[1]]
    for other in imported(module):
        if other.startswith("jaxrl."):
            assert FLOOR[other.split(".")[1]] <= floor, other
    assert not [x for x in imports(SOURCES[module]) if x.startswith(".")]


def test_few_modules_import_jaxrl_envs():
    """Only the command line, `run_config` and adapters of objects import `jaxrl_envs`."""
    allowed = ("jaxrl.cli", "jaxrl.runs.run_config")
    for module in SOURCES:
        if module.startswith("jaxrl.") and not module.startswith(allowed):
            ours = {x for x in imported(module) if x.startswith("jaxrl_envs")}
            assert ours <= {"jaxrl_envs.libraries", "jaxrl_envs.objects"}, module


def test_tests_do_not_import_benchmarks():
    """Shared code is in `tests/helpers`; tests of benchmarks are in `benchmarks/tests`."""
    for path in (ROOT / "tests").rglob("*.py"):
        found = imports(path.read_text(encoding="utf-8"))
        assert not [name for name in found if name.split(".")[0] == "benchmarks"], path


def test_root_package_stays_small():
    modules = [path for path in (ROOT / "jaxrl").glob("*.py") if path.stem[0] != "_"]
    assert len(modules) <= 17


@pytest.mark.parametrize("module", SOURCES)
def test_files_have_at_most_400_lines(module):
    assert SOURCES[module].count("\n") <= 400


ON_PURPOSE = {
    node.name
    for source in SOURCES.values()
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.ClassDef)
    and {ast.unparse(base) for base in node.bases}
    & {"JaxrlError", "InvalidValue", "InvalidType", "Unable", "Exception"}
}
NOT_ERRORS = {
    "NotImplementedError",
    "AttributeError",
    "SystemExit",
    "KeyboardInterrupt",
    "Interrupted",
}
"""For abstract methods, missing module attributes, and exits."""


@pytest.mark.parametrize("module", SOURCES)
def test_deliberate_errors_have_a_known_class(module):
    """The command prints a `JaxrlError` in one line; other exceptions are bugs."""
    known = ON_PURPOSE | NOT_ERRORS | {"argparse.ArgumentTypeError", "Interrupted"}
    for node in ast.walk(ast.parse(SOURCES[module])):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).removesuffix(".of")
            assert name in known, f"raise {name} in line {node.lineno}"


def test_single_rollout_and_update_loop():
    """Only the rollout and wrappers step environments, and only one loop calls `update`."""
    ours = {name: text for name, text in SOURCES.items() if name.startswith("jaxrl.")}
    steps = {name for name, text in ours.items() if re.search(r"envs?\.step\(", text)}
    inside = {name for name in steps if name.startswith("jaxrl.wrappers.")}
    first = {"jaxrl.engine.first_step", "jaxrl.engine.vector_env"}  # one traced step, and N of them
    assert steps - inside == {"jaxrl.engine.rollout", *first}
    assert [n for n, text in ours.items() if "agent.update(" in text] == ["jaxrl.engine.learners"]
    agents = "".join(text for name, text in ours.items() if name.startswith("jaxrl.agents."))
    assert "jnp.mean" not in agents
    assert ".mean(" not in agents


def test_helper_agents_do_not_import_the_engine():
    """The test agents import the agent interface and its tools, nothing of the engine."""
    for module in (
        CrossEntropy, FittedQ, MaskedActorCritic, QLearning, RecurrentPolicyGradient, Workers,
    ):  # fmt: skip
        source = inspect.getsource(inspect.getmodule(module))
        assert not {"jaxrl", "jaxrl.engine"} & imports(source)  # `jaxrl` imports the engine
