"""Ctrl-C, SIGTERM and SIGHUP while a run is being written: it is saved, and ends."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


class Interrupted(KeyboardInterrupt):
    """A run ended early because someone asked; its state is saved, and the text says where.

    Attributes:
      signal: the number of the signal that asked.
    """

    def __init__(self, text: str, signal: int):
        super().__init__(text)
        self.signal = signal


@contextlib.contextmanager
def ending_well() -> Iterator[Callable[[], int]]:
    """Within the block SIGINT, SIGTERM and SIGHUP are only noted; a second SIGINT interrupts.

    Programs send SIGTERM and SIGHUP, some more than once for one end: a shell and the kernel both
    say that the terminal was closed. A second Ctrl-C is a person who has no patience.

    Yields what tells the number of the signal that came first, or 0. Under `nohup` SIGHUP stays
    ignored. In other threads than the main one, where Python sets no handlers, signals do what they
    did before.
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
            signal.signal(number, handler or signal.SIG_DFL)  # None: not from Python
