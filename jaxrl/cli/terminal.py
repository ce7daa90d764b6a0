"""Standard streams that may fail: a closed pipe, a full disk, a closed terminal."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


def ensure() -> None:
    """Opens missing standard streams (`>&-`) on /dev/null.

    Otherwise a file of the run could get the descriptor of standard output, and XLA's output.
    """
    if sys.stdout is not None and sys.stderr is not None:
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def say(text: str) -> None:
    """Prints a line to standard error, if that still works."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Discards the stream's unwritten and future output."""
    with contextlib.suppress(OSError, ValueError):  # not a file
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


@contextlib.contextmanager
def ignoring_stdout_errors() -> Iterator[None]:
    """Within the block, failures of standard output are reported once and then ignored."""
    stream: Any = _TolerantStream(sys.stdout)
    with contextlib.redirect_stdout(stream):
        try:
            yield
        finally:
            stream.flush()


class _TolerantStream:
    """A text stream that ignores write errors."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._is_gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._attempt(lambda: self._write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._stream.write(text.encode(error.encoding, "replace").decode(error.encoding))

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._is_gone:
            return
        try:
            action()
        except (OSError, ValueError) as error:  # ValueError: closed
            self._is_gone = True
            silence(self._stream)
            why = getattr(error, "strerror", None) or error
            say(f"jaxrl: standard output is gone ({why}): the run continues without it")
