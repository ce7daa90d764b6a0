"""The published order: on data that are not an expert's, values help; demonstrations teach."""

import numpy as np
import pytest

from benchmarks import demonstrations, offline, teachers
from jaxrl.cli.presets import preset
from jaxrl.registry import algorithms
from jaxrl.value_text import parse


def test_values_beat_cloning_on_random_data():
    """Table 1 of Kumar et al. (2020) and of Kostrikov et al. (2022), by the factor of CartPole."""
    env = teachers.environment("CartPole")
    data = teachers.recorded("CartPole", "random", 0, 100)
    found = {
        name: offline.returns(offline.METHODS["CartPole"][name], env, data, [0], 2000).mean()
        for name in ("cloning", "CQL", "IQL")
    }
    assert min(found["CQL"], found["IQL"]) > 4 * found["cloning"], found


def test_presets_are_what_was_measured():
    names = {"cloning": "behaviour_cloning", "CQL": "cql", "IQL": "iql", "TD3+BC": "td3_bc"}
    for task, methods in offline.METHODS.items():
        for name, agent in methods.items():
            if name not in names:
                continue
            settings = preset(names[name], teachers.ENVIRONMENTS[task])
            assert settings.pop("total_steps") == offline.UPDATES
            assert settings.pop("normalize_observations")
            flags = {flag.name: flag for flag in algorithms()[names[name]].flags}
            given = {k: parse(flags[k].type, str(v)) for k, v in settings.items()}
            assert type(agent)(**given) == agent


@pytest.mark.thorough
@pytest.mark.optimized  # as for the figure: rounding makes another teacher
def test_labels_where_the_pupil_goes_are_worth_more():
    """Of one demonstration of Pendulum, DAgger learns more than cloning (Ross et al., 2011)."""
    found = {
        name: np.mean([method("Pendulum", 1, seed) for seed in (0, 1)])
        for name, method in demonstrations.METHODS.items()
    }
    assert found["DAgger"] > found["cloning"] + 300, found
