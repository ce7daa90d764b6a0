"""Mutants are unique, match the source and are caught by tests."""

import ast
import re

import pytest
from helpers.paths import ROOT
from mutants.catalogue import MUTANTS
from mutants.run import part, verdict_on

every_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


def test_names_are_unique():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)


@every_mutant
def test_mutants_change_the_program(mutant):
    """The snippet occurs once, and the mutated file differs and parses."""
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    mutated = mutant.apply(source)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))


@every_mutant
def test_mutants_name_existing_tests(mutant):
    for test in mutant.tests:
        file, *scope = test.partition("[")[0].split("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in scope:
            assert re.search(rf"^ *(class|def) {name}\b", source, re.MULTILINE), test


def test_parts_cover_all_mutants():
    names = [mutant.name for k in (1, 2, 3, 4) for mutant in MUTANTS[part(f"{k}/4")]]
    assert sorted(names) == sorted(mutant.name for mutant in MUTANTS)
    with pytest.raises(ValueError, match="5/4"):
        part("5/4")


def test_the_page_lists_every_mutant():
    page = (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([a-z0-9-]+) \| (.*?) \|", page, re.MULTILINE)
    expected = [(mutant.name, mutant.defect) for mutant in MUTANTS]
    assert [row for row in listed if row[0] != "mutant"] == expected, "run: make mutants"


@pytest.mark.slow
@every_mutant
def test_suite_catches_the_mutant(mutant, tmp_path):
    verdict = verdict_on(mutant, tmp_path / mutant.name)
    assert verdict.caught_by, verdict.complaint
