"""Training speed, compile time and peak memory on CartPole, compared with other libraries.

Each library compiles in its own process; then their runs alternate, A B C A B C ..., so that all of
them suffer equally if the machine slows down. Medians are printed. There are no evaluations.
"jaxrl-devices" is jaxrl on all devices, one for each core of a CPU: the seeds of P4 and G1 are
spread over them, and they share the environments of P1 and P2. "jaxrl-one-thread" is jaxrl with one
thread of XLA, which `jaxrl train` chooses for small updates.

    python -m benchmarks.throughput P1 P2 P3 P4
    python -m benchmarks.throughput P1 --peer-path CHECKOUT_OF_PUREJAXRL --peer-python PYTHON
    python -m benchmarks.throughput P1 G1       on a GPU; G1 trains 2,048 agents in parallel
    python -m benchmarks.throughput --write     also renews the table in docs/speed.md

The other libraries need a separate environment, since they fail on gymnax 1.0:
    pip install rejax==0.1.3 gymnax==0.0.9 distrax sb3-contrib
Missing libraries are skipped with a message.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks import speed
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent
PATIENCE = 120  # seconds without output after which a program counts as hanging
SECONDS_TO_END = 10  # time to exit after the end of input


class Worker:
    """A library in its own process; see worker.py."""

    def __init__(
        self,
        program: str,
        python: str,
        workload: str,
        path: str,
        environment: dict[str, str] | None = None,
        script: str = "worker.py",
    ):
        self.program = program
        self.errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  (lives as long as the worker)
        try:
            self.process = subprocess.Popen(
                [python, str(HERE / script), program, workload, "--path", path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                start_new_session=True,  # to kill its subprocesses, too
                # Otherwise the first process would take three quarters of a GPU's memory.
                env={
                    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
                    **os.environ,
                    **(environment or {}),
                },
            )
        except OSError:
            self.errors.close()
            raise
        self.lines: queue.Queue[dict | None] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.ready = self.hear()
        self.seconds: list[float] = []

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                with contextlib.suppress(ValueError):  # printed by the library
                    said = json.loads(line)
                    if isinstance(said, dict):
                        self.lines.put(said)
        self.lines.put(None)

    def hear(self) -> dict:
        """The next line; raises RuntimeError if the process died or hangs."""
        try:
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            self.kill()
            self.end()
            raise RuntimeError(f"no output for {PATIENCE} s: it hangs") from None
        if line is None:
            raise RuntimeError(self.end())
        return line

    def kill(self) -> None:
        """Kills the process and its subprocesses."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> str:
        """Waits for the process, with a time limit; returns its last error line or exit code."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            code = self.process.wait(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.process.wait()
        self.listener.join(timeout=SECONDS_TO_END)
        self.errors.seek(0)
        last = self.errors.read().strip().splitlines()
        self.errors.close()
        return last[-1] if last else f"exit code {code}"

    def ask(self, command: str) -> dict:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `hear` reports the reason
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        return self.hear()

    def run(self, seed: int) -> None:
        self.seconds.append(self.ask(f"run {seed}")["seconds"])

    def quit(self) -> dict:
        peak = self.ask("quit")
        self.end()
        return peak


def measure(
    workload: str,
    programs: dict[str, tuple[str, str]],
    rounds: int,
    script: str = "worker.py",
) -> list[dict]:
    """Runs the programs of a workload alternately; returns one row per program."""
    workers = []
    for program, (python, path) in programs.items():
        try:
            workers.append(Worker(program, python, workload, path, script=script))
        except (RuntimeError, OSError) as error:
            print(f"  {program}: skipped ({error})", file=sys.stderr)
    for seed in range(rounds + 1):
        for worker in list(workers):
            try:
                worker.run(seed)
            except RuntimeError as error:
                print(f"  {worker.program}: dropped ({error})", file=sys.stderr)
                workers.remove(worker)
    rows = []
    for worker in workers:
        try:
            peak = worker.quit()
        except RuntimeError as error:
            print(f"  {worker.program}: dropped ({error})", file=sys.stderr)
            continue
        speeds = [worker.ready["env_steps"] / s for s in worker.seconds[1:]]  # the first warms up
        rows.append(
            {
                "workload": workload,
                "program": worker.program,
                "steps_per_second": statistics.median(speeds),
                "slowest": min(speeds),
                "fastest": max(speeds),
                **worker.ready,
                **peak,
            }
        )
    return rows


def factors(rows: list[dict]) -> list[tuple[str, str, float, bool]]:
    """How much faster each program of jaxrl is than each other library.

    Returns:
      For each pair: the names, the factor, and whether the work was equal.
    """
    ours = [row for row in rows if row["program"].startswith("jaxrl")]
    return [
        (
            own["program"],
            row["program"],
            own["steps_per_second"] / row["steps_per_second"],
            all(row[name] == own[name] for name in ("parameters", "env_steps")),
        )
        for own in ours
        for row in rows
        if row not in ours
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(WORKLOADS)
    parser.add_argument("workloads", nargs="*", metavar="ROW", help=f"one of {names}")
    parser.add_argument("--rounds", type=int, default=5, help="runs per program (default: 5)")
    parser.add_argument("--peer-path", default="", help="checkout of PureJaxRL")
    parser.add_argument("--peer-python", default="", help="interpreter with the other libraries")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--write", action="store_true", help="renew the table in docs/speed.md")
    options = parser.parse_args()
    unknown = [w for w in options.workloads if w not in WORKLOADS]
    if unknown:
        parser.error(f"unknown row {unknown[0]!r}: choose from {names}")

    programs = dict.fromkeys(speed.OWN, (sys.executable, ""))
    if options.peer_python:
        programs["rejax"] = programs["sb3"] = (options.peer_python, "")
        if options.peer_path:
            programs["purejaxrl"] = (options.peer_python, options.peer_path)
    chosen = options.workloads or [name for name in WORKLOADS if name.startswith("P")]
    for name in dict.fromkeys(name for row in chosen for name in WORKLOADS[row].programs):
        if name not in programs:
            needs = "--peer-python" + " and --peer-path" * (name == "purejaxrl")
            print(f"{name}: skipped, it needs {needs}", file=sys.stderr)

    rows = []
    print(
        f"{'row':<4} {'program':<16} {'steps/s':>11} {'range':>19} "
        f"{'trace':>7} {'XLA':>7} {'peak':>9}"
    )
    for workload in chosen:
        there = {name: programs[name] for name in WORKLOADS[workload].programs if name in programs}
        of_workload = measure(workload, there, options.rounds)
        for row in of_workload:
            spread = f"{row['slowest']:,.0f}-{row['fastest']:,.0f}"
            print(
                f"{row['workload']:<4} {row['program']:<16} {row['steps_per_second']:>11,.0f} "
                f"{spread:>19} {row['trace_seconds']:>6.1f}s {row['compile_seconds']:>6.1f}s "
                f"{row['peak_mib']:>5.0f} MiB",
                flush=True,
            )
        for own, peer, factor, same_work in factors(of_workload):
            if not same_work:
                print(f"     {peer} did different work: not comparable", file=sys.stderr)
            print(f"     {own} / {peer}: {factor:.2f}")
        rows += of_workload
        if options.write:
            speed.store(of_workload)
            speed.write_page()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
