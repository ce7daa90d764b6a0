"""Paths that users give, and files that may not fit on the disk. Imports no jax."""

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
"""What a file system without hard links answers."""


OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Full, over a quota, over a limit on files, broken, or not to be written."""


class WriteError(JaxrlError, OSError):
    """A file could not be written. The message names the file and the reason."""

    @classmethod
    def of(cls, path: Path | str, error: OSError) -> Self:
        """Of the file that the operation was about, for the reason of the error."""
        return cls(error.errno, f"cannot write {path}: {error.strerror or error}")

    def __str__(self) -> str:
        return str(self.strerror)


def is_of_the_disk(error: OSError) -> bool:
    """Whether the disk is to blame, and neither the user nor a defect."""
    return error.errno in OF_THE_DISK


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turns an OSError of the block into a WriteError about `path`.

    tensorstore, with which orbax writes, raises ValueErrors that carry the number of an OSError.
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
    """Returns when the file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def replace(path: Path, content: str | bytes, *, new: bool = False) -> None:
    """Writes a file whole or not at all.

    Args:
      path: the file.
      content: text, or bytes.
      new: whether there must be no such file yet.

    Raises:
      WriteError: it cannot be written; what was there before is still there.
      FileExistsError: there is one that should not be.
    """
    # a name of this process's own: another machine may be writing the same file
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
    """Gives the file its name; of several processes one succeeds, also on other machines."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise WriteError.of(path, error) from error
        partial.replace(path)


def user_path(path: Path | str) -> Path:
    """The path with `~` or `~name` replaced by that home directory.

    Raises:
      ValueError: it begins with `~`, and there is no home directory.
    """
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:
        if path.parts[0] == "~":
            raise InvalidValue(
                f"{path}: there is no home directory: write the whole path"
            ) from None
        return path  # as a shell does with the name of nobody
