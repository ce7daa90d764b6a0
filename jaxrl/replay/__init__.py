"""Experience replay: a replay buffer and a sum tree for priorities."""

from jaxrl.replay.buffer import BufferState as BufferState
from jaxrl.replay.buffer import ReplayBuffer as ReplayBuffer
from jaxrl.replay.buffer import Replayed as Replayed
from jaxrl.replay.sum_tree import SumTree as SumTree
