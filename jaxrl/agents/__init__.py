"""The algorithms, one file each."""

from jaxrl.agents.a2c import A2C
from jaxrl.agents.a3c import A3C
from jaxrl.agents.behaviour_cloning import BehaviourCloning
from jaxrl.agents.cem import CEM
from jaxrl.agents.compatible_actor_critic import CompatibleActorCritic
from jaxrl.agents.copdac import COPDAC
from jaxrl.agents.cql import CQL
from jaxrl.agents.dagger import DAgger
from jaxrl.agents.ddpg import DDPG
from jaxrl.agents.dqn import DQN
from jaxrl.agents.evolution import Evolution
from jaxrl.agents.finite_difference import FiniteDifference
from jaxrl.agents.fitted_q import FittedQ
from jaxrl.agents.fitted_q_actor_critic import FittedQActorCritic
from jaxrl.agents.hill_climbing import HillClimbing
from jaxrl.agents.impala import IMPALA
from jaxrl.agents.iql import IQL
from jaxrl.agents.natural_actor_critic import NaturalActorCritic
from jaxrl.agents.npg import NPG
from jaxrl.agents.offpac import OffPAC
from jaxrl.agents.online_actor_critic import OnlineActorCritic
from jaxrl.agents.online_q import OnlineQ
from jaxrl.agents.ppo import PPO
from jaxrl.agents.ppo_penalty import PPOPenalty
from jaxrl.agents.pqn import PQN
from jaxrl.agents.q_search import QSearch
from jaxrl.agents.rainbow import Rainbow
from jaxrl.agents.reinforce import REINFORCE
from jaxrl.agents.rpg import RPG
from jaxrl.agents.sac import SAC
from jaxrl.agents.shac import SHAC
from jaxrl.agents.td3 import TD3
from jaxrl.agents.td3_bc import TD3BC
from jaxrl.agents.trpo import TRPO

__all__ = [
    "A2C",
    "A3C",
    "CEM",
    "COPDAC",
    "CQL",
    "DDPG",
    "DQN",
    "IMPALA",
    "IQL",
    "NPG",
    "PPO",
    "PQN",
    "REINFORCE",
    "RPG",
    "SAC",
    "SHAC",
    "TD3",
    "TD3BC",
    "TRPO",
    "BehaviourCloning",
    "CompatibleActorCritic",
    "DAgger",
    "Evolution",
    "FiniteDifference",
    "FittedQ",
    "FittedQActorCritic",
    "HillClimbing",
    "NaturalActorCritic",
    "OffPAC",
    "OnlineActorCritic",
    "OnlineQ",
    "PPOPenalty",
    "QSearch",
    "Rainbow",
]
