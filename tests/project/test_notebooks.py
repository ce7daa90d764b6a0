"""The notebooks run from top to bottom in a new kernel."""

import ast

import pytest
from helpers.paths import ROOT

nbclient = pytest.importorskip("nbclient", reason="needs the extra notebooks")
nbformat = pytest.importorskip("nbformat", reason="needs the extra notebooks")

pytestmark = pytest.mark.thorough

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def executed(path, **client_options):
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", **client_options
    ).execute()
    return notebook


def text(notebook):
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs)


def pictures(notebook):
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return sum("image/png" in out.get("data", {}) for out in outputs)


def test_quickstart_learns_and_draws(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")  # use the notebook's own backend
    (path,) = (path for path in NOTEBOOKS if path.name == "01_quickstart.ipynb")
    notebook = executed(path, resources={"metadata": {"path": str(tmp_path)}})
    printed = text(notebook)
    curve = [float(line.split()[-1]) for line in printed.splitlines() if " steps   return" in line]
    assert len(curve) == 10
    assert curve[-1] > 300.0  # random actions: 20; this seed: 488 on jax 0.10, 402 on 0.11
    final = {
        line.split()[0]: float(line.split()[3].rstrip(","))
        for line in printed.splitlines()
        if "final return" in line
    }
    assert set(final) == {"PPO", "TRPO"}
    assert min(final.values()) > 300.0
    assert pictures(notebook) == 2
    assert not list(tmp_path.iterdir())  # it leaves nothing behind


def test_the_sweep_trains_every_agent_and_ranks_them(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")
    (path,) = (path for path in NOTEBOOKS if path.name == "02_sweep_in_one_jit.ipynb")
    notebook = executed(path, resources={"metadata": {"path": str(tmp_path)}})
    printed = text(notebook).splitlines()
    assert printed[0] == "learning_rate (12,) discount (12,)"
    assert printed[1].startswith("48 agents of 50,000 steps in ")
    ranked = [float(line.split()[4]) for line in printed if line.startswith("learning_rate 0")]
    assert len(ranked) == 5
    assert ranked == sorted(ranked, reverse=True)
    assert ranked[0] > 400.0
    assert pictures(notebook) == 1


def test_interrupted_run_is_resumed_loaded_and_exported(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")
    (path,) = (path for path in NOTEBOOKS if path.name == "03_resume_and_export.ipynb")
    notebook = executed(path, resources={"metadata": {"path": str(tmp_path)}})
    printed = text(notebook)
    assert "the machine is gone after " in printed
    assert "equal to the bit: True" in printed
    assert "acts as the original: True" in printed
    assert pictures(notebook) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_install_once_and_store_their_plots(path):
    """One cell installs jaxrl if it is missing, and plots are stored in the notebook."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    (installing,) = (source for source in code if "%pip" in source)
    assert "find_spec" in installing
    assert pictures(notebook) >= 1
    for source in code:
        if source is not installing:
            ast.parse(source)  # no other magic, so it runs anywhere
