"""Callbacks of `fit` that end a run early. A callback is a function of an event.

>>> def stop_when_bored(event):
...     if isinstance(event, Evaluation) and event.return_means.mean() < 10:
...         return "it learns nothing"

An evaluation holds the evaluated state, which the next iteration overwrites: copy it to keep it.

>>> def keep_the_best(event):
...     if isinstance(event, Evaluation) and event.return_mean > best["return"]:
...         best.update({"return": event.return_mean, "state": jax.tree.map(jnp.copy, event.state)})
"""

import time
from collections.abc import Callable

from jaxrl.runs.events import Compiled, Evaluation, Event

Callback = Callable[[Event], str | None]
"""Called with each event; a returned text ends the run after a last evaluation and says why."""


def stop_at_return(target: float) -> Callback:
    """Ends the run when the mean return of an evaluation reaches `target`.

    Diverged members are left out. If a member finished no episode, the target is not reached.
    """

    def callback(event: Event) -> str | None:
        if not isinstance(event, Evaluation) or not event.return_mean >= target:
            return None
        every, lost = len(event.returns), len(event.diverged)
        over = f" over {every - lost} of {every} members; the others diverged" if lost else ""
        return f"the return reached {target:g}{over}"

    return callback


def time_budget(seconds: float) -> Callback:
    """Ends the run `seconds` after compilation; checked about once a second."""
    end = float("inf")

    def callback(event: Event) -> str | None:
        nonlocal end
        if isinstance(event, Compiled):
            end = time.monotonic() + seconds
        return f"{seconds:g} seconds have passed" if time.monotonic() >= end else None

    return callback
