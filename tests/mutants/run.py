"""Puts each mutant into a copy of the library and runs the tests that must notice it.

    make mutants
    PYTHONPATH=tests python -m mutants.run [NAME ...] [--part 1/4] [--jobs 2] [--write FILE]

First, the same tests must pass on an unchanged copy: a test that fails anyway proves nothing. Then,
for each mutant, one of its tests must fail with an assertion; a failed import, a syntax error or an
exception in the mutated code do not count. The exit code is 1 if a mutant survived.
"""

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from mutants.catalogue import MUTANTS
from mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("jaxrl", "envs", "tests", "conftest.py", "pyproject.toml")
SECONDS = 180  # for the tests of one mutant
NOT_THE_COPY = 90
ASSERTIONS = ("assert ", "AssertionError", "Failed: DID NOT RAISE")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome for a mutant: the test that caught it, or a complaint."""

    mutant: Mutant
    caught_by: str = ""
    complaint: str = ""


def copy_of_the_library(folder: Path) -> None:
    """Copies what the tests need into `folder`."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


SERVER = multiprocessing.get_context("forkserver")
"""Starts processes with slow imports preloaded; not gymnax, which starts jax's backend on import,
and that must not be forked."""
SERVER.set_forkserver_preload(["pytest", "jax", "flax.linen", "optax", "seaborn"])


def prepare(work: Path) -> None:
    """Sets environment variables; call it before any test runs."""
    os.environ |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    # Most programs of a mutant are those of the unchanged library, and the cache finds them by
    # content.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(work / "compiled"))


def pytest(folder: Path, *arguments: str, seconds: float) -> int | None:
    """Runs tests of the copy in `folder`; returns pytest's exit code, or None on a timeout.

    Writes `report.xml` and `output.txt` into the folder.
    """
    process = SERVER.Process(target=_pytest, args=(folder, arguments))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def _pytest(folder: Path, arguments: tuple[str, ...]) -> None:
    """Runs pytest in a process of its own, which imports the copy."""
    packages = [str(folder), str(folder / "envs")]
    os.environ["PYTHONPATH"] = os.pathsep.join(packages)  # for subprocesses of the tests
    sys.path[:0] = packages
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    import pytest

    options = ["-q", "--tb=short", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    # Another process may be writing the same cache entry; then this one compiles by itself.
    for verb in ("reading", "writing"):
        options += ["-W", f"ignore:Error {verb} persistent compilation cache"]
    code = int(pytest.main([*options, *arguments]))
    import jaxrl
    import jaxrl_envs

    for module in (jaxrl, jaxrl_envs):
        if module.__file__ is None or not module.__file__.startswith(str(folder)):
            print(f"tested {module.__file__} instead of the copy")
            code = NOT_THE_COPY
    sys.stdout.flush()
    os._exit(code)  # threads of jax may outlive the tests


def check_the_unchanged_copy(mutants: tuple[Mutant, ...], folder: Path, jobs: int) -> str:
    """An error message if a test fails without any mutant; empty if all pass."""
    copy_of_the_library(folder)
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    code = pytest(folder, "-n", str(jobs), *tests, seconds=5 * SECONDS)
    if code is None:
        return f"TIMEOUT: not finished in {5 * SECONDS} s without any mutant"
    printed = (folder / "output.txt").read_text(encoding="utf-8")
    return "" if code == 0 else f"fails without any mutant:\n{printed}"


def verdict_on(mutant: Mutant, folder: Path) -> Verdict:
    """Runs the mutant's tests on a mutated copy in `folder`."""
    copy_of_the_library(folder)
    file = folder / mutant.file
    file.write_text(mutant.apply(file.read_text(encoding="utf-8")), encoding="utf-8")
    code = pytest(folder, "--exitfirst", *mutant.tests, seconds=SECONDS)
    if code is None:
        return Verdict(mutant, complaint=f"TIMEOUT: not finished in {SECONDS} s")
    if code == 0:
        return Verdict(mutant, complaint="SURVIVED: its tests pass")
    if code != 1:  # 2: not collected, 4: no such test, 5: no test
        return Verdict(mutant, complaint=f"BROKEN: pytest's exit code {code}")
    return _verdict_of_the_report(mutant, folder / "report.xml")


def _verdict_of_the_report(mutant: Mutant, report: Path) -> Verdict:
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in case.iter("failure"):
            message = failure.get("message", "")
            names = iter(case.get("classname", "").split("."))
            module = next(name for name in names if name.startswith("test_"))  # after its folders
            test = "::".join((f"{module}.py", *names, case.get("name", "")))
            if message.startswith(mutant.error or ASSERTIONS):
                return Verdict(mutant, caught_by=test)
            first_line = message.partition("\n")[0]
            return Verdict(mutant, complaint=f"CRASHED {test}: {first_line}")
    return Verdict(mutant, complaint="BROKEN: a test could not be set up")


def report_of(verdicts: list[Verdict]) -> str:
    """A Markdown page with all verdicts."""
    rows = [
        f"| {v.mutant.name} | {v.mutant.defect} | {_code(v.caught_by) or v.complaint} |"
        for v in verdicts
    ]
    caught = sum(bool(v.caught_by) for v in verdicts)
    return "\n".join(
        (
            "# Mutants",
            "",
            "`make mutants` puts these defects into copies of the library, one at a time, and runs "
            "the tests that must notice",
            "them. A library in parentheses has shipped that defect or a similar one. The mutants "
            "are defined in",
            "`tests/mutants/`; `make mutants MUTANTS_ARGS='--write docs/mutants.md'` "
            "writes this page.",
            "",
            f"{caught} of {len(verdicts)} mutants are noticed.",
            "",
            "| mutant | defect | noticed by |",
            "|---|---|---|",
            *rows,
            "",
        )
    )


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def part(text: str) -> slice:
    """Parses "2/4": every fourth mutant, starting with the second."""
    k, n = (int(number) for number in text.split("/"))
    if not 1 <= k <= n:
        raise ValueError(text)
    return slice(k - 1, None, n)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks that the tests notice known defects.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants (default: all)")
    parser.add_argument(
        "--part", type=part, default=slice(None), metavar="K/N", help="every N-th, from the K-th on"
    )
    parser.add_argument("--jobs", type=int, default=2, help="parallel processes (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the report to this file")
    options = parser.parse_args(arguments)
    known = {mutant.name: mutant for mutant in MUTANTS}
    for name in options.names:
        if name not in known:
            parser.error(f"unknown mutant {name!r}: use {', '.join(known)}")
    mutants = (tuple(known[name] for name in options.names) or MUTANTS)[options.part]

    sys.stdout.reconfigure(line_buffering=True)  # to see each line at once in a file, too
    start = time.monotonic()
    verdicts = []
    print(f"{len(mutants)} mutants; first their tests without mutants")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        prepare(work)
        if complaint := check_the_unchanged_copy(mutants, work / "unchanged", options.jobs):
            print(complaint)
            return 1
        print(f"{'no mutant':44} passes ({time.monotonic() - start:.0f} s)")
        folders = [work / mutant.name for mutant in mutants]
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for v in pool.map(verdict_on, mutants, folders):
                verdicts.append(v)
                print(f"{v.mutant.name:44} {v.caught_by or v.complaint}")
                if not v.caught_by:
                    print(f"{'':44} {v.mutant.defect}")
    survivors = [v for v in verdicts if not v.caught_by]
    print(
        f"{len(verdicts) - len(survivors)} noticed, {len(survivors)} not, "
        f"{time.monotonic() - start:.0f} s"
    )
    if options.write:
        options.write.write_text(report_of(verdicts), encoding="utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
