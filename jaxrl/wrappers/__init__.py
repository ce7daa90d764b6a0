"""Environment wrappers: each changes one thing and leaves the rest alone.

A wrapper is a pytree like the environment it wraps: its float parameters are leaves, and its state
is part of the environment's and is reset with it. Action masks, termination and truncation pass
through. Invalid combinations raise when `spec` is first read, which the engine does before anything
is compiled.
"""

from jaxrl.wrappers.action import DiscretizeActions as DiscretizeActions
from jaxrl.wrappers.action import RescaleActions as RescaleActions
from jaxrl.wrappers.action import StickyActions as StickyActions
from jaxrl.wrappers.action import is_available as is_available
from jaxrl.wrappers.base import Wrapper as Wrapper
from jaxrl.wrappers.observation import ClipObservation as ClipObservation
from jaxrl.wrappers.observation import FlattenObservation as FlattenObservation
from jaxrl.wrappers.observation import FrameStack as FrameStack
from jaxrl.wrappers.observation import MaskVelocity as MaskVelocity
from jaxrl.wrappers.observation import ScaleObservation as ScaleObservation
from jaxrl.wrappers.observation import TimeAwareObservation as TimeAwareObservation
from jaxrl.wrappers.reward import ClipReward as ClipReward
from jaxrl.wrappers.reward import ScaleReward as ScaleReward
from jaxrl.wrappers.time import ActionRepeat as ActionRepeat
from jaxrl.wrappers.time import TimeLimit as TimeLimit
