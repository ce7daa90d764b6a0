"""Ctrl-C and SIGTERM while a run is being written: asked for once, it ends at a good place."""

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
    """Within the block the first SIGINT or SIGTERM is only noted; the second one interrupts.

    Yields what tells the number of the one that has come, or 0. In other threads than the main one,
    where Python sets no handlers, signals do what they did before.
    """
    asked = 0

    def note(number, frame):
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = number

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not from Python
