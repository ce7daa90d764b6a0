"""A host loop over the same compiled chunk as `train`: progress, logs and files between calls."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.engine.options import called_with, options_class
from jaxrl.engine.training import Training, TrainingArguments
from jaxrl.errors import InvalidValue
from jaxrl.runs.callbacks import Callback
from jaxrl.runs.directory import RunDirectory
from jaxrl.runs.disk import WriteError, user_path
from jaxrl.runs.events import Result
from jaxrl.runs.interrupt import Interrupted, ending_well
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
    """Trains as `train` does, with checkpoints and files; prints nothing itself.

    Called as `fit(agent, env, key, total_steps=..., **options)`, where options are the fields of
    `jaxrl.engine.options.TrainingOptions`, of `jaxrl.runs.run_options.RunOptions` and those below.

    On a CPU the two give equal bits, where `train` is jitted as a function of the agent, the
    environment and the key. A function that closes over them makes their numbers constants, which
    XLA computes with beforehand: the last digit may differ.

    Args:
      agent, env: as for `train`.
      key: one typed key, or `[seeds]` of them for as many runs in one program.
      points: hyper-parameters to train with besides, `[{"learning_rate": 1e-3}, ...]`: every point
        with every key, in the same program. Float fields of the agent, as for `sweep`.
      run_dir: a directory to make, for the configuration, the metrics, checkpoints, a summary and
        a learning curve. `~` is the home directory. It belongs to this process until the run ends.
      resume: go on where the run in `run_dir` was saved last, bit-identical to an uninterrupted
        run; begin, where there is none. `total_steps` may have grown.
      callbacks: called with each `Event`; one that returns a text ends the run
        (`jaxrl.runs.callbacks`).

    Raises:
      ValueError, TypeError: a field does not fit, `run_dir` holds files already, is written by
        another process or cannot be written, or holds a run of another configuration or
        environment; before anything is compiled.
      WriteError: the disk is full, say; what was saved last can be resumed.
      DivergenceError: no member's metrics are finite any more.
      Interrupted: by Ctrl-C, SIGTERM or SIGHUP; with `run_dir`, after the state was saved.
    """
    check_key(given.key)
    run_dir, resume = given.run_dir, given.resume
    if resume and run_dir is None:
        raise InvalidValue("resume asks for a run_dir: that of the run to go on with")
    if given.keep_best and run_dir is None:
        raise InvalidValue(
            "keep_best asks for a run_dir; without one, copy event.state in a callback"
        )
    options, callbacks = RunOptions.of(given.values()), given.callbacks
    members = Members.of(Training.of(given), given.key, given.points)
    if run_dir is None:
        return run(members, options, callbacks=callbacks)
    begun = resume and (user_path(run_dir) / "config.json").exists()
    directory = RunDirectory.resume(run_dir) if begun else RunDirectory.create(run_dir)
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
    """The loop behind `fit`, for members and a directory that have been made.

    Args:
      members, options: who trains, and how it is followed.
      directory: where to record the run.
      resume: whether the directory holds it already.
      origin: names for the record; those of the classes unless given.
      callbacks: as for `fit`.
    """
    if directory is None:
        return Loop(members, options, callbacks).run()
    from jaxrl.runs.recorder import Recorder  # deferred: orbax and matplotlib take a second

    recorder = None
    try:
        with Recorder(directory, members, options, origin) as recorder:
            if resume:
                recorder.check_resumable()
            else:
                recorder.begin()
            with ending_well() as asked:
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
                if number := asked():  # too late to end it early: whoever called is to end
                    raise Interrupted(f"the run {directory.path} is complete", number)
    except WriteError as error:
        left = "" if recorder is None else recorder.what_is_left()
        raise WriteError(error.errno, f"{error}{left}") from error
    finally:
        directory.discard()  # if nothing was written into it
    return result
