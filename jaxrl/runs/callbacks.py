"""Callbacks of `fit` that end a run early. One's own are as short: a function of an event.

>>> def stop_when_bored(event):
...     if isinstance(event, Evaluation) and event.return_means.mean() < 10:
...         return "it learns nothing"

An evaluation holds the state that was evaluated, which the next iteration writes over: copy it.

>>> def keep_the_best(event):
...     if isinstance(event, Evaluation) and event.return_mean > best["return"]:
...         best.update({"return": event.return_mean, "state": jax.tree.map(jnp.copy, event.state)})
"""

import time
from collections.abc import Callable

from jaxrl.runs.events import Compiled, Evaluation, Event

Callback = Callable[[Event], str | None]
"""Called with each event; a text ends the run, after a last evaluation, and says why."""


def stop_at_return(target: float) -> Callback:
    """Ends the run when an evaluation's return, the mean over its members, reaches `target`.

    Members that have diverged do not count. One that finished no episode has not reached it.
    """

    def callback(event: Event) -> str | None:
        if not isinstance(event, Evaluation) or not event.return_mean >= target:
            return None
        every, lost = len(event.returns), len(event.diverged)
        over = f" over {every - lost} of {every} members; the others diverged" if lost else ""
        return f"the return reached {target:g}{over}"

    return callback


def time_budget(seconds: float) -> Callback:
    """Ends the run `seconds` after it was compiled; in training it is looked at once a second."""
    end = float("inf")

    def callback(event: Event) -> str | None:
        nonlocal end
        if isinstance(event, Compiled):
            end = time.monotonic() + seconds
        return f"{seconds:g} seconds have passed" if time.monotonic() >= end else None

    return callback
