"""Ctrl-C, SIGTERM and SIGHUP during a run: it is saved before it ends."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class Interrupted(KeyboardInterrupt):
    """A run was interrupted; its state is saved, and the message says where.

    Attributes:
      signal: number of the signal that was received.
    """

    def __init__(self, text: str, signal: int):
        super().__init__(text)
        self.signal = signal


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], int]]:
    """Within the block, SIGINT, SIGTERM and SIGHUP are only recorded; a second SIGINT interrupts.

    A second SIGTERM or SIGHUP does not, because programs may send them more than once: when a
    terminal is closed, both the shell and the kernel send SIGHUP.

    Yields a function that returns the number of the first signal, or 0. Under `nohup`, SIGHUP stays
    ignored. Outside of the main thread, where Python cannot set handlers, nothing changes.
    """
    asked = 0

    def note(number, frame):
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = asked or number

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    noted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        noted.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in noted}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None if not set from Python
