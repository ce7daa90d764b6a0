"""All mutants: one defect each, as a change of a few lines, and the tests that must notice it.

A snippet that no longer occurs once in its file fails a fast test: follow the code, so that the
defect stays what its sentence says. A new algorithm brings the defects of its kind along.
"""

from mutants import (
    agents,
    bases,
    contracts,
    distributions,
    engine,
    envs,
    estimators,
    losses,
    networks,
    optimization,
    replay,
    runs,
    xla,
)
from mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *agents.MUTANTS,
    *bases.MUTANTS,
    *engine.MUTANTS,
    *envs.MUTANTS,
    *networks.MUTANTS,
    *replay.MUTANTS,
    *runs.MUTANTS,
    *xla.MUTANTS,
    *distributions.MUTANTS,
    *estimators.MUTANTS,
    *losses.MUTANTS,
    *optimization.MUTANTS,
    *contracts.MUTANTS,
)
