"""Experience replay: a replay buffer and a sum tree for priorities.

The exponents of prioritised replay are fields of `agents/dqn.py`; Rainbow has its own defaults.
"""

from jaxrl.replay.buffer import BufferState as BufferState
from jaxrl.replay.buffer import ReplayBuffer as ReplayBuffer
from jaxrl.replay.buffer import Replayed as Replayed
from jaxrl.replay.sum_tree import SumTree as SumTree
