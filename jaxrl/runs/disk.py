"""User paths, atomic writes and disk errors. It does not import jax."""

import contextlib
import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from jaxrl.errors import InvalidValue, JaxrlError

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Errors of file systems without hard links."""


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Disk full, quota exceeded, file too large, I/O error, or read-only."""


class WriteError(JaxrlError, OSError):
    """A file could not be written. The message names the file and the reason."""

    @classmethod
    def of(cls, path: Path | str, error: OSError) -> Self:
        """The error for a file, with the reason of the underlying error."""
        return cls(error.errno, f"cannot write {path}: {error.strerror or error}")

    def __str__(self) -> str:
        return str(self.strerror)


def is_disk_error(error: OSError) -> bool:
    """Whether the error comes from the disk, rather than from the user or a bug."""
    return error.errno in DISK_ERRORS


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turns an OSError in the block into a WriteError about `path`.

    tensorstore, which orbax uses, raises ValueErrors with the number of an OSError in the message.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError.of(path, error) from error
    except ValueError as error:
        if (found := re.search(r"os_error_code='(\d+)'", str(error))) is None:
            raise
        number = int(found[1])
        raise WriteError.of(path, OSError(number, os.strerror(number))) from error


def sync(file: IO[Any]) -> None:
    """Flushes the file to disk."""
    file.flush()
    os.fsync(file.fileno())


def replace(path: Path, content: str | bytes, *, new: bool = False) -> None:
    """Writes a file atomically.

    Args:
      path: the file.
      content: text or bytes.
      new: whether the file must not exist yet.

    Raises:
      WriteError: it cannot be written; an existing file is kept.
      FileExistsError: with `new`, the file exists.
    """
    # a name unique to this process: another machine may be writing the same file
    partial = path.parent / f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial"
    data = content.encode() if isinstance(content, str) else content
    try:
        with writing(path):
            with partial.open("wb") as file:
                file.write(data)
                sync(file)
            if not new:
                partial.replace(path)
        if new:
            _publish(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _publish(partial: Path, path: Path) -> None:
    """Gives the file its name; only one of several processes succeeds, even across machines."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise WriteError.of(path, error) from error
        partial.replace(path)


def user_path(path: Path | str) -> Path:
    """The path with `~` or `~name` expanded.

    Raises:
      ValueError: it begins with `~` but there is no home directory.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:
        if path.parts[0] == "~":
            raise InvalidValue(f"{path}: there is no home directory: give the full path") from None
        return path  # like a shell with an unknown user name
