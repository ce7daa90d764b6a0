"""The files of checkpoints, with orbax: atomic, written in the background, without pickle.

A checkpoint consists of named parts, which are trees of arrays, and a JSON record
(`jaxrl.runs.checkpoint` says which). Here the name, shape, dtype and checksum of every array are
added to the record. Arrays are checked against them and against a template when they are read.
"""

import contextlib
import functools
import json
import logging
import shutil
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp  # type: ignore[import-untyped]

from jaxrl.devices import hosts
from jaxrl.errors import InvalidValue, JaxrlError
from jaxrl.replay.saved import fitted
from jaxrl.runs.checkpoint import SCHEMA_VERSION, as_networks, current_name
from jaxrl.runs.directory import plain
from jaxrl.runs.disk import writing
from jaxrl.trees import named_leaves
from jaxrl.types import PyTree

RECORD = "record"
NOT_DAMAGE = (MemoryError, PermissionError)
"""Errors of the machine rather than of the checkpoint."""


class DamagedCheckpoint(JaxrlError):
    """A checkpoint is damaged; the message says how."""


class Checkpoints:
    """The checkpoints in one directory, each named by its number of environment steps per seed."""

    def __init__(self, path: Path | str, *, keep: int | None = None):
        """Uses the directory `path`, created if missing; keeps the newest `keep`, None for all."""
        self.path = Path(path).absolute()
        self._shown = path  # in messages
        self._keep = keep
        self._open = contextlib.ExitStack()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            enable_async_checkpointing=True,
            create=hosts.count() == 1,
            cleanup_tmp_directories=True,  # left by a process that was killed while writing
            multiprocessing_options=_alone(),
        )
        if hosts.count() > 1:
            self.path.mkdir(parents=True, exist_ok=True)
        self._open.enter_context(_quiet_threads())
        return ocp.CheckpointManager(self.path, options=options)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, newest first."""
        if not self.path.is_dir():
            return []
        found = (int(p.name) for p in self.path.iterdir() if p.name.isdecimal())
        return sorted(found, reverse=True)

    def save(self, step: int, parts: Mapping[str, PyTree], record: Mapping[str, Any]) -> None:
        """Copies the arrays in `parts` and writes them in the background.

        The checkpoint appears once it is complete. Arrays may be donated as soon as this returns.

        Raises:
          WriteError: this checkpoint, or the one before, cannot be written.
        """
        copies = {name: _arrays(tree) for name, tree in parts.items()}
        leaves = {name: _described(arrays) for name, arrays in copies.items()}
        record = plain({**record, "schema_version": SCHEMA_VERSION, "leaves": leaves})
        items = {
            # orbax cannot store empty arrays; their shape is in the record
            name: ocp.args.StandardSave({k: x for k, x in arrays.items() if x.size})
            for name, arrays in copies.items()
        }
        sealed = ocp.args.JsonSave({"record": record, "crc32": _checksum(record)})
        with writing(self._shown):
            self._manager.save(step, args=ocp.args.Composite(record=sealed, **items))

    def put_aside(self, step: int) -> Path:
        """Moves a damaged checkpoint out of the way and returns its new path."""
        aside = self.path.parent / f"damaged-checkpoint-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        return (self.path / str(step)).rename(aside)

    def wait(self) -> None:
        """Waits until everything is written; raises like `save`."""
        if "_manager" in self.__dict__:
            with writing(self._shown):
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and stops the writer threads; raises like `save`."""
        if "_manager" in self.__dict__:  # otherwise nothing was saved, and nothing to create
            with self._open, writing(self._shown):
                try:
                    self._manager.wait_until_finished()
                finally:
                    self._manager.close()

    def record(self, step: int) -> dict[str, Any]:
        """The checkpoint's record.

        Raises:
          DamagedCheckpoint: it cannot be read.
          ValueError: a newer jaxrl wrote it.
        """
        directory = self.path / str(step)
        if (directory / "_METADATA").exists():  # schema 1: only the final TrainState
            return {"schema_version": 1}
        try:
            handler = ocp.JsonCheckpointHandler(multiprocessing_options=_alone())
            sealed = handler.restore(directory / RECORD, args=ocp.args.JsonRestore())
            record, checksum = sealed["record"], sealed["crc32"]
            version = record["schema_version"]
        except NOT_DAMAGE:
            raise
        except Exception as error:  # anything that orbax and json may raise
            raise DamagedCheckpoint(_first_line(error)) from error
        if _checksum(record) != checksum:
            raise DamagedCheckpoint("its record differs from what was written")
        if version > SCHEMA_VERSION:
            raise InvalidValue(
                f"{directory} has schema version {version}, but this jaxrl reads up to "
                f"{SCHEMA_VERSION}: use the jaxrl that wrote it"
            )
        return record

    def load(self, step: int, part: str, like: PyTree) -> PyTree:
        """Loads one part of the checkpoint, structured like `like`.

        Args:
          step: step of the checkpoint.
          part: name of the part.
          like: template of structure, shapes and dtypes: arrays, or results of `jax.eval_shape`.
            NumPy arrays are loaded as NumPy arrays, all others on the first device.

        Raises:
          DamagedCheckpoint: an array is missing, cannot be read, or differs from what was written.
          ValueError: structure, shapes or dtypes differ from `like`.
        """
        record = self.record(step)
        if record["schema_version"] == 1:
            arrays = self._read_schema_1(step, part, like)
        else:
            arrays = self._read(step, part, record["leaves"][part])
        arrays = fitted(as_networks(arrays, _leaves(like)), _leaves(like))
        return _filled(like, arrays, f"the checkpoint {self.path / str(step)}")

    def _read(self, step: int, part: str, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
        blank = {name: np.zeros(x["shape"], _dtype(x["dtype"])) for name, x in leaves.items()}
        try:
            handler = ocp.StandardCheckpointHandler(multiprocessing_options=_alone())
            arrays = handler.restore(
                self.path / str(step) / part,
                args=ocp.args.StandardRestore({k: x for k, x in blank.items() if x.size}),
            )
        except NOT_DAMAGE:
            raise
        except Exception as error:  # as above
            raise DamagedCheckpoint(_first_line(error)) from error
        arrays = {**blank, **{name: np.asarray(x) for name, x in arrays.items()}}
        changed = [k for k, x in _described(arrays).items() if x["crc32"] != leaves[k]["crc32"]]
        if changed:
            raise DamagedCheckpoint(f"{changed[0]} differs from what was written")
        return {current_name(name): x for name, x in arrays.items()}

    def _read_schema_1(self, step: int, part: str, like: PyTree) -> dict[str, np.ndarray]:
        """Reads schema 1: one nested tree, a `TrainState`, with the same names as today's parts."""
        try:
            with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about reading saved shardings
                tree = checkpointer.restore(self.path / str(step))
        except Exception as error:  # as above
            raise DamagedCheckpoint(_first_line(error)) from error
        flat = {current_name(name): np.asarray(x) for name, x in _leaves(tree).items()}
        return {name: flat[name] for name in _leaves(like) if name in flat}


def replace_by(
    path: Path, step: int, parts: Mapping[str, PyTree], record: Mapping[str, Any]
) -> None:
    """Replaces all checkpoints in the directory `path` by a new one, once it is fully written.

    Raises:
      WriteError: it cannot be written; the previous ones are kept.
    """
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed while writing
    try:
        with writing(path / str(step)):
            with contextlib.closing(Checkpoints(partial)) as checkpoints:
                checkpoints.save(step, parts, record)
            path.mkdir(exist_ok=True)
            shutil.rmtree(path / str(step), ignore_errors=True)
            (partial / str(step)).rename(path / str(step))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for older in Checkpoints(path).steps():
        if older != step:
            shutil.rmtree(path / str(older), ignore_errors=True)


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Suppresses what orbax's threads print about errors, which are raised here as well."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def is_news(record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)

    def quieter(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":  # from writes that came too late
            hook(unraisable)

    logger.addFilter(is_news)
    sys.unraisablehook = quieter
    try:
        yield
    finally:
        logger.removeFilter(is_news)
        if sys.unraisablehook is quieter:
            sys.unraisablehook = hook


def _alone() -> ocp.options.MultiprocessingOptions:
    """Options of orbax with which this process waits for no other one."""
    if hosts.count() == 1:
        return ocp.options.MultiprocessingOptions()
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process-{this}"
    )


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _impl(key: Any) -> Any:
    return jax.random.key_impl(jnp.empty((), key.dtype))  # works for shapes, too


def _leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves by name, with "value" for a single leaf."""
    return {name or "value": x for name, x in named_leaves(tree).items()}


def _arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves by name, copied to the host; keys as key data."""
    return {
        name: np.array(jax.random.key_data(x) if _is_key(x) else x)
        for name, x in _leaves(tree).items()
    }


def _described(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name: {
            "shape": list(x.shape),
            "dtype": x.dtype.name,
            "crc32": zlib.crc32(np.ascontiguousarray(x).view(np.uint8).reshape(-1).data),
        }
        for name, x in arrays.items()
    }


def _checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _dtype(name: str) -> np.dtype:
    return jnp.dtype(name)  # NumPy's does not know bfloat16


def _filled(like: PyTree, arrays: Mapping[str, np.ndarray], what: str) -> PyTree:
    """`like` with its leaves replaced by the arrays of the same names."""

    def one(name: str, leaf: Any) -> Any:
        key = _is_key(leaf)
        words = jax.eval_shape(jax.random.key_data, leaf) if key else leaf
        if name not in arrays:
            raise InvalidValue(f"{what} has no {name}")
        x = arrays[name]
        if (x.shape, x.dtype) != (words.shape, words.dtype):
            raise InvalidValue(
                f"{what} has {name} as {x.dtype}{list(x.shape)}, expected "
                f"{words.dtype}{list(words.shape)}"
            )
        if isinstance(leaf, np.ndarray):
            return x
        array = jnp.array(x, copy=True)  # shares no memory, so it can be donated
        return jax.random.wrap_key_data(array, impl=_impl(leaf)) if key else array

    leaves = _leaves(like)
    filled = [one(name, leaf) for name, leaf in leaves.items()]
    if unused := arrays.keys() - leaves.keys():
        raise InvalidValue(f"{what} has {min(unused)}, which is not expected")
    return jax.tree.unflatten(jax.tree.structure(like), filled)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
