"""All mutants: each is one defect in a few lines, with the tests that must notice it.

A fast test checks that each snippet occurs exactly once in its file: when the code changes, change
the snippet so that the defect stays the same. A new algorithm adds typical defects of its kind.
"""

from mutants import (
    agents,
    bases,
    contracts,
    distributions,
    engine,
    envs,
    estimators,
    hosted,
    losses,
    networks,
    optimization,
    options,
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
    *hosted.MUTANTS,
    *networks.MUTANTS,
    *replay.MUTANTS,
    *runs.MUTANTS,
    *xla.MUTANTS,
    *distributions.MUTANTS,
    *estimators.MUTANTS,
    *losses.MUTANTS,
    *optimization.MUTANTS,
    *contracts.MUTANTS,
    *options.MUTANTS,
)
