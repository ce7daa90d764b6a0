"""docs/coverage.md names only what exists: its links lead to files, and its tests are defined."""

import re

from helpers.paths import ROOT

PAGE = ROOT / "docs" / "coverage.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 40
    assert [x for x in links if not (PAGE.parent / x).is_file()] == []


def test_tests_are_defined():
    named = re.findall(r"`((?:benchmarks/)?tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_each_row_names_a_test():
    rows = [x for x in TEXT.splitlines() if x.startswith("| ") and not x.startswith("| topic")]
    assert [x for x in rows if not re.search("`(benchmarks/)?tests/", x)] == []
