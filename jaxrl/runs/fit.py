"""`fit`: training as a host loop over the compiled chunk of `train`, with logs and files."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.devices import hosts
from jaxrl.engine import hosted
from jaxrl.engine.checked_vector import EnvironmentFault
from jaxrl.engine.options import called_with, options_class
from jaxrl.engine.training import Training, TrainingArguments
from jaxrl.errors import InvalidValue
from jaxrl.runs.callbacks import Callback
from jaxrl.runs.directory import RunDirectory
from jaxrl.runs.disk import WriteError, user_path
from jaxrl.runs.events import Result
from jaxrl.runs.interrupt import Interrupted, deferred_signals
from jaxrl.runs.loop import DivergenceError, Loop
from jaxrl.runs.members import Members
from jaxrl.runs.run_config import Origin
from jaxrl.runs.run_options import RunOptions
from jaxrl.types import Key
from jaxrl.xla.threefry import check_key
from jaxrl.xla.transfers import transfers_allowed


@options_class
class FitArguments(RunOptions, TrainingArguments):
    """The arguments of `fit`."""

    key: Key = dataclasses.field(kw_only=False)
    points: Sequence[Mapping[str, Any]] | None = None
    run_dir: Path | str | None = None
    resume: bool = False
    callbacks: Sequence[Callback] = ()


@called_with(FitArguments)
def fit(given: FitArguments) -> Result:
    """Trains like `train`, with progress events, checkpoints and files; prints nothing.

    Called as `fit(agent, env, key, total_steps=..., **options)`. Options are the arguments below
    and the fields of `jaxrl.engine.options.TrainingOptions` and
    `jaxrl.runs.run_options.RunOptions`.

    On a CPU, `fit` and a jitted `train` give equal bits if the agent, the environment and the key
    are arguments of the jitted function. If it closes over them, XLA folds their numbers as
    constants, and the last digit may differ.

    Args:
      agent, env: as for `train`.
      key: a typed key, or keys `[seeds]` to train several seeds in one program, spread over
        the devices that jax has. With `devices=n`, devices that are left over share the
        environments of each seed. A CPU is one device, unless
        `jax.config.update("jax_num_cpu_devices", n)` comes before anything is computed.
      points: hyper-parameters to sweep, `[{"learning_rate": 1e-3}, ...]`: each point is trained
        with each key, in the same program. Float fields of the agent, as for `sweep`.
      run_dir: directory to create for the configuration, metrics, checkpoints, summary and
        learning curve; `~` is expanded. It belongs to this process until the run ends.
      resume: continue the run in `run_dir` from its newest checkpoint, bit-identical to an
        uninterrupted run; start it if there is none. `total_steps` may be larger than before.
      callbacks: called with each `Event`; a returned text ends the run (`jaxrl.runs.callbacks`).

    After `jax.distributed.initialize`, every process calls `fit` with the same arguments, and the
    members are spread over the devices of all. The first process writes `run_dir`; events and
    results are the same in all, and leaves of a `state` are arrays on the devices of all processes
    (`jax.experimental.multihost_utils.process_allgather` copies them to the host).

    Raises:
      ValueError, TypeError: an argument is invalid; or `run_dir` is not empty, cannot be written
        to, is in use by another process, or contains a run with another configuration or
        environment. Raised before anything is compiled.
      WriteError: a disk error, such as a full disk; the newest checkpoint can be resumed.
      DivergenceError: all members have diverged.
      Interrupted: Ctrl-C, SIGTERM or SIGHUP; with `run_dir`, the state has been saved.
      EnvironmentFault: an environment that steps outside JAX has failed or hangs; with `run_dir`,
        the state of the last finished iteration has been saved.
      PeerLost: another process of the run has ended.
    """
    check_key(given.key)
    run_dir, resume = given.run_dir, given.resume
    if resume and run_dir is None:
        raise InvalidValue("resume needs run_dir: pass the directory of the run to resume")
    if given.keep_best and run_dir is None:
        raise InvalidValue("keep_best needs run_dir: pass one, or copy event.state in a callback")
    options, callbacks = RunOptions.of(given.values()), given.callbacks
    training = Training.of(given)
    hosted.check_actors(training, options.actors, options.actor_lag)
    members = Members.of(training, given.key, given.points, options.devices)
    if run_dir is None:
        return run(members, options, callbacks=callbacks)
    directory = RunDirectory(run_dir)

    def claim() -> bool:
        nonlocal directory
        begun = resume and (user_path(run_dir) / "config.json").exists()
        directory = RunDirectory.resume(run_dir) if begun else RunDirectory.create(run_dir)
        return begun

    begun = hosts.by_first(claim)
    return run(members, options, directory=directory, resume=begun, callbacks=callbacks)


@transfers_allowed
def run(
    members: Members,
    options: RunOptions,
    *,
    directory: RunDirectory | None = None,
    resume: bool = False,
    origin: Origin | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Runs `fit` with existing members and directory.

    Args:
      members: the members of the run.
      options: how it is evaluated, saved and logged.
      directory: where to record it; None for nowhere.
      resume: whether to resume the run in the directory.
      origin: names of the algorithm and the environment; by default those of their classes.
      callbacks: as for `fit`.
    """
    if directory is None:
        with hosts.losses_explained("start again"):
            return Loop(members, options, callbacks).run()
    from jaxrl.runs.recorder import Recorder  # deferred: orbax and matplotlib take a second

    recorder = None
    try:
        with Recorder(directory, members, options, origin) as recorder:
            if resume:
                hosts.by_first(recorder.check_resumable)
            else:
                recorder.begin()
            losses_explained = hosts.losses_explained(recorder.go_on)
            with deferred_signals() as asked, losses_explained:
                loop = Loop(members, options, (recorder, *callbacks), recorder, asked)
                try:
                    result = loop.run(resume)
                except DivergenceError as error:
                    recorder.give_up(str(error), loop.run_state)
                    raise
                except Exception:
                    recorder.retract()
                    raise
                recorder.finish(result)
                # too late to end early, but the caller should end
                if number := max(hosts.of_all(asked())):
                    raise Interrupted(f"the run {directory.path} is complete", number)
    except EnvironmentFault as error:
        left = "" if recorder is None else recorder.recovery_hint()
        raise EnvironmentFault(f"{error}{left}") from error.__cause__
    except WriteError as error:
        left = "" if recorder is None else recorder.recovery_hint()
        raise WriteError(error.errno, f"{error}{left}") from error
    finally:
        directory.discard()  # only if nothing was written into it
    return result
