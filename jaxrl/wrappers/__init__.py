"""Environments made of environments: each wrapper changes one thing and passes on the rest.

A wrapper is a pytree like what it wraps: its float parameters are leaves, its state is part of the
environment's, and a reset resets it. Action masks and the difference between termination and
truncation pass through. What does not fit together raises when `spec` is first read, which the
engine does before anything is compiled.
"""

from jaxrl.wrappers.action import DiscretizeActions as DiscretizeActions
from jaxrl.wrappers.action import StickyActions as StickyActions
from jaxrl.wrappers.action import is_available as is_available
from jaxrl.wrappers.base import Wrapper as Wrapper
from jaxrl.wrappers.observation import ClipObservation as ClipObservation
from jaxrl.wrappers.observation import FlattenObservation as FlattenObservation
from jaxrl.wrappers.observation import FrameStack as FrameStack
from jaxrl.wrappers.observation import MaskVelocity as MaskVelocity
from jaxrl.wrappers.observation import ScaleObservation as ScaleObservation
from jaxrl.wrappers.reward import ClipReward as ClipReward
from jaxrl.wrappers.reward import ScaleReward as ScaleReward
from jaxrl.wrappers.time import ActionRepeat as ActionRepeat
from jaxrl.wrappers.time import TimeLimit as TimeLimit
