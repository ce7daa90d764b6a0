"""A critic with an optimiser of its own, fitted in several passes after the policy's step."""

from typing import Any, Protocol

import jax
import optax

from jaxrl.agents.bases.actor_critic import Sample
from jaxrl.errors import InvalidValue
from jaxrl.hyper import check_range
from jaxrl.losses import mean, value_loss
from jaxrl.minibatches import minibatch, minibatch_indices
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.optimizers import adam, descend
from jaxrl.schedules import Scheduled
from jaxrl.types import Array, Clock, Key, PyTree, Trajectory
from jaxrl.validation import check_whole
from jaxrl.xla import layout
from jaxrl.xla.flatten import Flattened, as_tree


class HasCritic(Protocol):
    """The hyper-parameters that an agent with such a critic has."""

    shared_torso: bool
    critic_learning_rate: Scheduled
    critic_epochs: int
    critic_minibatches: int

    @property
    def network(self) -> ActorCritic: ...


def check_critic(agent: HasCritic, rows: int, what: str) -> None:
    """Raises ValueError where the critic's fields do not fit; `rows` are what is divided."""
    if agent.shared_torso:
        raise InvalidValue(
            f"shared_torso is True: {type(agent).__name__} fits the critic by an optimiser of its "
            "own, which would move a torso in common behind the policy's back. Leave it False, or "
            "use PPO"
        )
    check_range(agent, "critic_learning_rate")
    for field in ("critic_epochs", "critic_minibatches"):
        check_whole(field, getattr(agent, field))
    if rows % agent.critic_minibatches:
        raise InvalidValue(
            f"critic_minibatches is {agent.critic_minibatches}, which does not divide "
            f"{what} = {rows}"
        )


def split(params: PyTree) -> tuple[PyTree, PyTree]:
    """The policy's parameters and the critic's; the two share none."""
    modules = params["params"]
    critic = {name: x for name, x in modules.items() if name.startswith("critic")}
    actor = {name: x for name, x in modules.items() if name not in critic}
    return {"params": actor}, {"params": critic}


def join(actor: PyTree, critic: PyTree) -> PyTree:
    """What `split` took apart."""
    return {"params": actor["params"] | critic["params"]}


def finite_adam(learning_rate: Scheduled, clock: Clock) -> optax.GradientTransformation:
    """Adam; a gradient that is not finite changes nothing, however often."""
    return optax.apply_if_finite(adam(learning_rate, clock), max_consecutive_errors=2**31 - 1)


def fit_critic(
    agent: HasCritic, critic: PyTree, optimizer: Any, batch: Trajectory, key: Key, clock: Clock
) -> tuple[PyTree, Any, Array]:
    """`critic_epochs` passes of regression onto the value targets of a batch of `Sample`s.

    Args:
      batch: single steps `[B, ...]`, or sequences `[T, N, ...]`, which stay whole.

    Returns:
      The critic's parameters, its optimiser's state, and its mean loss in the last pass.
    """
    transform = finite_adam(agent.critic_learning_rate, clock)
    axis = batch.first.ndim - 1
    rows = batch.first.shape[axis]

    def one(carry, index):
        critic, optimizer = carry
        part = minibatch(batch, index, axis)
        sample: Sample = part.steps

        def loss(critic):
            apply: Any = agent.network.apply
            values, _ = apply(critic, sample.obs, part.carry, part.first, method="value")
            return value_loss(values, sample.target, sample.valid), None

        critic, optimizer, error, _ = descend(transform, loss, critic, optimizer)
        return (critic, optimizer), error

    index = minibatch_indices(key, rows, agent.critic_epochs, agent.critic_minibatches)
    start = Flattened.of(critic) if layout.is_cpu() else critic
    (fitted, optimizer), errors = jax.lax.scan(one, (start, optimizer), index)
    return as_tree(fitted), optimizer, mean(errors[-agent.critic_minibatches :])
