"""The mutants are unique, match the source, and are noticed by the tests."""

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
def test_a_mutant_is_another_program(mutant):
    """Its snippet occurs once, and the mutated file differs and can be parsed."""
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    mutated = mutant.apply(source)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))


@every_mutant
def test_a_mutant_names_tests_that_exist(mutant):
    for test in mutant.tests:
        file, *scope = test.partition("[")[0].split("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in scope:
            assert re.search(rf"^ *(class|def) {name}\b", source, re.MULTILINE), test


def test_parts_are_the_whole():
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
def test_the_suite_notices(mutant, tmp_path):
    verdict = verdict_on(mutant, tmp_path / mutant.name)
    assert verdict.caught_by, verdict.complaint
