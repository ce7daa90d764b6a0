"""Optimisers by name or factory, and gradient steps."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxrl.devices.shards import (
    as_different,
    differs,
    mean_over_shards,
    num_shards,
    sum_of_tree,
)
from jaxrl.errors import InvalidType, Unable
from jaxrl.networks.variables import carried_names, merged, trained
from jaxrl.schedules import Scheduled, at
from jaxrl.types import Array, Clock, PyTree, Scalar
from jaxrl.xla import layout
from jaxrl.xla.flatten import sum_of_vectors


def adam(
    learning_rate: Scheduled,
    clock: Clock,
    *,
    epsilon: Scalar = 1e-8,
    max_grad_norm: Scalar | None = None,
) -> optax.GradientTransformation:
    """Adam with gradient clipping by global norm.

    It works on one flattened vector instead of a dozen small arrays, which is faster on CPUs.

    Args:
      learning_rate: the step size, a number or a schedule.
      clock: training progress.
      epsilon: Adam's epsilon.
      max_grad_norm: global norm above which gradients are scaled down; None for no clipping.
    """
    return _clipped(optax.adam(at(learning_rate, clock), eps=epsilon), max_grad_norm)


def rmsprop(
    learning_rate: Scheduled,
    clock: Clock,
    *,
    decay: Scalar = 0.99,
    epsilon: Scalar = 1e-5,
    max_grad_norm: Scalar | None = None,
) -> optax.GradientTransformation:
    """RMSprop with gradient clipping by global norm: g / sqrt(m + epsilon), m the mean of g^2.

    m starts at 1, as in TensorFlow, which A2C's published results used: steps are small until m
    has decayed to the size of g^2, some hundreds of steps with a decay of 0.99.

    Args:
      learning_rate: the step size, a number or a schedule.
      clock: training progress.
      decay: decay of m per step.
      epsilon: added to m.
      max_grad_norm: global norm above which gradients are scaled down; None for no clipping.

    Source: Mnih et al., 2016, eq. S2 and S3.
    """
    rate = at(learning_rate, clock)
    return _clipped(optax.rmsprop(rate, decay, epsilon, initial_scale=1.0), max_grad_norm)


OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd"]
Factory = Callable[[Any], optax.GradientTransformation]
"""A function from a learning rate to an optimiser, such as `optax.adamw`."""

TransformOf = Callable[[Any], optax.GradientTransformation]
"""A function from what a loss returned as aux to the optimiser of the step."""


def optimizer(
    choice: OptimizerName | Factory,
    learning_rate: Scheduled,
    clock: Clock,
    *,
    max_grad_norm: Scalar | None = None,
    adam_epsilon: Scalar = 1e-8,
    rmsprop_decay: Scalar = 0.99,
    rmsprop_epsilon: Scalar = 1e-5,
) -> optax.GradientTransformation:
    """An optimiser by name or from a factory, with gradient clipping by global norm.

    Args:
      choice: a name, or a function from a learning rate to an optimiser.
      learning_rate: the step size, a number or a schedule.
      clock: training progress.
      max_grad_norm: global norm above which gradients are scaled down; None for no clipping.
      adam_epsilon: epsilon of Adam and AdamW.
      rmsprop_decay, rmsprop_epsilon: decay and epsilon of RMSprop.
    """
    match choice:
        case "adam":
            return adam(learning_rate, clock, epsilon=adam_epsilon, max_grad_norm=max_grad_norm)
        case "adamw":
            adamw = optax.adamw(at(learning_rate, clock), eps=adam_epsilon)
            return _clipped(adamw, max_grad_norm)
        case "rmsprop":
            return rmsprop(
                learning_rate,
                clock,
                decay=rmsprop_decay,
                epsilon=rmsprop_epsilon,
                max_grad_norm=max_grad_norm,
            )
        case "sgd":
            return _clipped(optax.sgd(at(learning_rate, clock)), max_grad_norm)
    # Not flattened: Muon, for example, looks at the shapes of matrices.
    return optax.chain(_clip(max_grad_norm), choice(at(learning_rate, clock)))


def check_factory(choice: Any) -> None:
    """Raises TypeError unless a factory maps a learning rate to an optimiser."""
    if callable(choice):
        made = choice(1e-3)
        if not isinstance(made, optax.GradientTransformation):
            raise InvalidType(
                f"optimizer(learning_rate) returns a {type(made).__name__}, which is not an "
                "optax.GradientTransformation: pass optax.adamw, for example"
            )


def _clip(max_grad_norm: Scalar | None) -> optax.GradientTransformation:
    if max_grad_norm is None:
        return optax.identity()
    return optax.clip_by_global_norm(max_grad_norm)


def _clipped(
    transform: optax.GradientTransformation, max_grad_norm: Scalar | None
) -> optax.GradientTransformation:
    return optax.flatten(optax.chain(_clip(max_grad_norm), transform))


def descend(
    transform: optax.GradientTransformation | TransformOf,
    loss: Callable[[PyTree], tuple[Array, Any]],
    params: PyTree,
    optimizer: optax.OptState,
    *,
    as_vector: bool = False,
) -> tuple[PyTree, optax.OptState, Array, Any]:
    """One gradient step on `loss(params) -> (float32[], aux)`.

    Args:
      transform: the optimiser, or a function from aux to it (a learning rate that depends on what
        the loss found).
      loss: function of the parameters.
      params: the parameters.
      optimizer: the optimiser's state.
      as_vector: whether a loop carries the parameters as a vector (`Agent.flattened`): then it is
        faster to move them as one.

    Returns:
      The new parameters, the optimiser's state, and the loss and aux before the step.
    """
    (value, aux), gradient = value_and_gradient(loss, params)
    if not isinstance(transform, optax.GradientTransformation):
        transform = transform(aux)
    updates, optimizer = transform.update(gradient, optimizer, params)
    add = sum_of_vectors if as_vector and layout.is_cpu() else optax.apply_updates
    return add(params, updates), optimizer, value, aux


def ascend(
    transform: optax.GradientTransformation,
    direction: PyTree,
    params: PyTree,
    optimizer: optax.OptState,
) -> tuple[PyTree, optax.OptState]:
    """One step along `direction`, structured like `params`.

    Returns:
      The new parameters and the optimiser's state.
    """
    descent = jax.tree.map(jnp.negative, direction)
    updates, optimizer = transform.update(descent, optimizer, params)
    return optax.apply_updates(params, updates), optimizer


def value_and_gradient(
    loss: Callable[[PyTree], tuple[Array, Any]], params: PyTree
) -> tuple[tuple[Array, Any], PyTree]:
    """`jax.value_and_grad(loss, has_aux=True)(params)`; shards exchange gradients as one vector.

    Raises:
      Unable: devices share the environments, and the loss is that of one device's data.
    """
    if num_shards() == 1:
        return jax.value_and_grad(loss, has_aux=True)(params)

    (kind,) = jax.make_jaxpr(lambda params: loss(params)[0])(params).out_avals
    if differs(kind):
        raise Unable(
            "a loss would be of the data of one device, where devices share the environments: use "
            "jaxrl.losses.mean for means over data, or train with devices=1"
        )

    def averaged(params: PyTree) -> tuple[Array, Any]:
        value, aux = loss(params)
        return mean_over_shards(value), aux  # terms of parameters alone count once, too

    found, gradient = jax.value_and_grad(averaged, has_aux=True)(as_different(params))
    return found, sum_of_tree(gradient)


def learn(
    transform: optax.GradientTransformation,
    loss: Callable[[PyTree], tuple[Array, tuple[PyTree, Any]]],
    variables: PyTree,
    optimizer: optax.OptState,
) -> tuple[PyTree, optax.OptState, Array, Any]:
    """`descend` on the `params` of flax modules; other collections are taken from the loss.

    Args:
      transform: the optimiser.
      loss: variables -> `(float32[], (carried, aux))`; `carried` has the collections that the pass
        changed, as returned by `own_modules.learning_pass`, in the place of each network.
      variables: variables of a module, or a tree of them.
      optimizer: the optimiser's state, initialised with `trained(variables)`.

    Returns:
      As `descend`.
    """
    if not carried_names(variables):
        new, optimizer, value, (_, aux) = descend(transform, loss, variables, optimizer)
        return new, optimizer, value, aux

    def of_params(params: PyTree) -> tuple[Array, tuple[PyTree, Any]]:
        return loss(merged(variables, params))

    params, optimizer, value, (carried, aux) = descend(
        transform, of_params, trained(variables), optimizer
    )
    return merged(variables, params, carried), optimizer, value, aux
