"""A host loop over the same compiled chunk as `train`: progress, logs and files between calls."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.agent import Agent
from jaxrl.engine.training import Training
from jaxrl.environment import Environment
from jaxrl.errors import InvalidValue
from jaxrl.runs.callbacks import Callback
from jaxrl.runs.directory import RunDirectory
from jaxrl.runs.disk import WriteError, user_path
from jaxrl.runs.events import Result
from jaxrl.runs.interrupt import Interrupted, ending_well
from jaxrl.runs.loop import DivergenceError, Loop
from jaxrl.runs.members import Members
from jaxrl.runs.run_options import Origin, RunOptions
from jaxrl.types import Key
from jaxrl.xla.threefry import check_key
from jaxrl.xla.transfers import transfers_allowed


def fit(
    agent: Agent,
    env: Environment,
    key: Key,
    *,
    total_steps: int,
    num_evaluations: int = 10,
    points: Sequence[Mapping[str, Any]] | None = None,
    run_dir: Path | str | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    keep_checkpoints: int = 3,
    keep_best: bool = False,
    stop_at_return: float | None = None,
    time_budget: float | None = None,
    tensorboard: bool = True,
    wandb: str | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Result:
    """Trains as `train` does, with checkpoints and files; prints nothing itself.

    On a CPU the two give equal bits, where `train` is jitted as a function of the agent, the
    environment and the key. A function that closes over them makes their numbers constants, which
    XLA computes with beforehand: the last digit may differ.

    Args:
      agent, env, total_steps, num_evaluations, **options: as for `train`.
      key: one typed key, or `[seeds]` of them for as many runs in one program.
      points: hyper-parameters to train with besides, `[{"learning_rate": 1e-3}, ...]`: every point
        with every key, in the same program. Float fields of the agent, as for `sweep`.
      run_dir: a directory to make, for the configuration, the metrics, checkpoints, a summary and
        a learning curve. `~` is the home directory. It belongs to this process until the run ends.
      resume: go on where the run in `run_dir` was saved last, bit-identical to an uninterrupted
        run; begin, where there is none. `total_steps` may have grown.
      checkpoint_seconds: time between checkpoints, at least; there is one at the end in any case.
      keep_checkpoints: how many of them stay.
      keep_best: keep what was learned at the best evaluation, too, for `load_policy(run_dir,
        step="best")`: the highest mean over all members that have not diverged.
      stop_at_return: end when an evaluation's return is that high, the mean over all members that
        have not diverged. What was reached is then judged on other episodes (`Result.afresh`).
      time_budget: end after so many seconds, compilation not counted.
      tensorboard: whether `run_dir` gets event files for TensorBoard.
      wandb: a project of Weights & Biases to log to as well (the extra `wandb`).
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
    check_key(key)
    run_options = RunOptions(
        num_evaluations=num_evaluations,
        checkpoint_seconds=checkpoint_seconds,
        keep_checkpoints=keep_checkpoints,
        keep_best=keep_best,
        stop_at_return=stop_at_return,
        time_budget=time_budget,
        tensorboard=tensorboard,
        wandb=wandb,
    )
    if resume and run_dir is None:
        raise InvalidValue("resume asks for a run_dir: that of the run to go on with")
    if keep_best and run_dir is None:
        raise InvalidValue(
            "keep_best asks for a run_dir; without one, copy event.state in a callback"
        )
    training = Training.create(agent, env, total_steps=total_steps, **options)
    members = Members.of(training, key, points)
    if run_dir is None:
        return run(members, run_options, callbacks=callbacks)
    begun = resume and (user_path(run_dir) / "config.json").exists()
    directory = RunDirectory.resume(run_dir) if begun else RunDirectory.create(run_dir)
    return run(members, run_options, directory=directory, resume=begun, callbacks=callbacks)


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
      members, settings: who trains, and how it is followed.
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
