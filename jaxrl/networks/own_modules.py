"""User-defined flax modules inside an agent's network.

Such a module always sees one leading batch axis, `[B, *obs]`, whatever axes the agent works on:
`x.reshape(x.shape[0], -1)` flattens an observation, and layers that treat axis 0 as the batch
(GroupNorm) do not mix rows.

Only its `params` are trained. Agents that learn action values (`trains` below: DQN and its
variants, FittedQ, CQL, IQL, OnlineQ, PQN, DDPG, TD3, TD3BC, SAC, QSearch) also carry other
collections, such as BatchNorm's `batch_stats`, and pass a random stream "dropout". If `__call__`
takes a keyword `train`, it is True for the network being updated, whose collections may change, and
False in acting, targets, evaluation and export. On-policy agents reject collections and random
streams: the policy must be the same function in acting and in learning, or the first importance
ratio is not 1.
"""

import dataclasses
import functools
import inspect
import math
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors, struct

from jaxrl.distributions import Distribution
from jaxrl.errors import InvalidType, InvalidValue
from jaxrl.networks.variables import carried_names
from jaxrl.trees import named_leaves
from jaxrl.types import Array, EnvSpec, Key, PyTree, split_mask, static


def call_directly(module: nn.Module, *inputs: PyTree) -> Any:
    """Calls a module that accepts any leading axes."""
    return module(*inputs)


@dataclasses.dataclass(frozen=True)
class OneBatchAxis:
    """Calls a module with all leading axes merged into one and restores them in its output.

    Attributes:
      shapes: shapes of the leaves of one unbatched observation, to find the leading axes.
      train: value of the keyword `train`; None for a module without it.
    """

    shapes: tuple[tuple[int, ...], ...]
    train: bool | None = None

    @classmethod
    def of(cls, module: nn.Module, spec: EnvSpec, *, trains: bool) -> Self:
        """The call for acting; `trains` says whether the agent passes `train`."""
        return cls(leaf_shapes(spec), False if trains and _train(module) is not None else None)

    @property
    def in_learning(self) -> Self:
        """The same call with `train=True`, if the module takes it."""
        return dataclasses.replace(self, train=None if self.train is None else True)

    def __call__(self, module: nn.Module, obs: PyTree, *others: PyTree) -> Any:
        """The output of `module(obs, *others)`: features `[..., F]` or a distribution `[...]`.

        Args:
          module: from `[B, ...]` to features `[B, F]` or a distribution over `[B]`.
          obs: leaves `[..., *shape]`.
          others: trees with the same leading axes.

        Raises:
          ValueError: the features have the wrong shape.
        """
        first, shape = jax.tree.leaves(obs)[0], self.shapes[0]
        leading = first.shape[: first.ndim - len(shape)]
        num, one = math.prod(leading), len(leading) == 1
        inputs = (obs, *others)
        if not one:
            inputs = jax.tree.map(lambda x: x.reshape(num, *x.shape[len(leading) :]), inputs)
        output = module(*inputs, **({} if self.train is None else {"train": self.train}))
        if not isinstance(output, jax.Array):
            return output if one else Unflattened(output, leading)
        known = isinstance(num, int)  # symbolic in export
        if output.ndim != 2 or (known and output.shape[0] != num):
            raise InvalidValue(
                f"{type(module).__name__} maps {num} observations to {output.shape}: a torso's "
                "features must be [B, F], one row for each observation [B, ...]"
            )
        return output if one else output.reshape(*leading, output.shape[-1])


class Unflattened(struct.PyTreeNode):
    """A distribution over rows `[B]`, viewed as one over `[*leading]` with B entries.

    Attributes:
      rows: the distribution; its inputs and outputs are trees `[B, ...]`.
      leading: shape of the leading axes, with B entries in total.
    """

    rows: Distribution
    leading: tuple[int, ...] = static()

    def sample(self, key: Key) -> PyTree:
        return self._restored(self.rows.sample(key))

    def mode(self) -> PyTree:
        return self._restored(self.rows.mode())

    def log_prob(self, action: PyTree) -> Array:
        return self._restored(self.rows.log_prob(self._flat(action)))

    def entropy(self) -> Array:
        return self._restored(self.rows.entropy())

    def kl(self, other: "Unflattened") -> Array:
        return self._restored(self.rows.kl(other.rows))

    @property
    def parameters(self) -> PyTree:
        return self._restored(self.rows.parameters)

    def fisher(self, tangent: PyTree) -> PyTree:
        return self._restored(self.rows.fisher(self._flat(tangent)))

    def _restored(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x.reshape(*self.leading, *x.shape[1:]), tree)

    def _flat(self, tree: PyTree) -> PyTree:
        num, axes = math.prod(self.leading), len(self.leading)
        return jax.tree.map(lambda x: x.reshape(num, *x.shape[axes:]), tree)


def leaf_shapes(spec: EnvSpec) -> tuple[tuple[int, ...], ...]:
    """Shapes of the leaves of one observation, without its action mask.

    Raises:
      ValueError: the observation has no leaves, or a complex one.
    """
    leaves = named_leaves(split_mask(spec.observation)[0])
    if not leaves:
        raise InvalidValue(
            f"spec.observation is {spec.observation!r}, but a network needs an array: if there is "
            "nothing to observe, use a constant, jnp.ones(1)"
        )
    for name, x in leaves.items():
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise InvalidValue(
                f"spec.observation{name and f'.{name}'} is {x.dtype}, but networks take real "
                "numbers: split it into real and imaginary parts"
            )
    return tuple(tuple(x.shape) for x in leaves.values())


def learning_pass(
    network: Any, variables: PyTree, *inputs: PyTree, key: Key, rngs: dict[str, Key] | None = None
) -> tuple[Any, PyTree]:
    """`network.apply` in training mode: the output and the collections that it changed.

    Args:
      network: a module with the field `call`, which calls the user's module.
      variables: its variables.
      key: for the random stream "dropout".
      rngs: keys of other streams.
    """
    if isinstance(network.call, OneBatchAxis):
        network = network.clone(call=network.call.in_learning)
        rngs = {**(rngs or {}), "dropout": key}
    if names := carried_names(variables):
        return network.apply(variables, *inputs, rngs=rngs, mutable=names)
    return network.apply(variables, *inputs, rngs=rngs), {}


# Checks -------------------------------------------------------------------------------------------


def check_module(agent: Any, field: str, spec: EnvSpec, *, trains: bool) -> None:
    """Raises ValueError or TypeError if the agent cannot use the module in that field.

    The module is traced; nothing is computed.

    Args:
      agent: the agent.
      field: `torso`, or `policy_network`, which also takes the action mask.
      spec: the environment's spec.
      trains: whether the agent has a training mode and carries collections other than params.
    """
    module, owner = getattr(agent, field), type(agent).__name__
    if module is None:
        return
    if not isinstance(module, nn.Module):
        raise InvalidType(f"{field} is {module!r}: it must be an instance of flax.linen.Module")
    name = f"{field} {type(module).__name__}"
    parameter = _train(module)
    if not trains and parameter is not None and parameter.default is inspect.Parameter.empty:
        raise InvalidValue(
            f"{name} needs the argument `train`, which {owner} does not pass. {ON_POLICY}"
        )
    call = OneBatchAxis.of(module, spec, trains=trains)
    is_policy = field == "policy_network"
    inputs = split_mask(spec.dummy_observation(3))[: 2 if is_policy else 1]
    key = jax.random.key(0)
    remedy = HOW_TO_TRAIN if trains else ON_POLICY

    def traced(what: str, function: Any, *args: Any, **options: Any) -> Any:
        try:
            return jax.eval_shape(functools.partial(function, **options), *args)
        except errors.InvalidRngError as error:
            raise InvalidValue(f"{name} draws random numbers {what}. {remedy}") from error
        except errors.ModifyScopeVariableError as error:
            raise InvalidValue(f"{name} changes its variables {what}. {remedy}") from error
        except ValueError as error:  # BatchNorm and Dropout without a mode
            if "must be passed to the constructor or at call time" not in str(error):
                raise
            raise InvalidValue(f"{name} has a layer without a mode: {error} {remedy}") from error

    variables = traced("when it is built", nn.init(call, module), key, *inputs)
    names = carried_names(variables)
    if names and not trains:
        raise InvalidValue(f"{name} has {', '.join(names)} besides its params. {ON_POLICY}")
    if names and parameter is None and (other := _other_mode(module)):
        raise InvalidValue(
            f"{name} has {', '.join(names)}, which would never change, because its keyword {other} "
            f"is never set. {HOW_TO_TRAIN}"
        )
    output = traced("in acting", nn.apply(call, module), variables, *inputs)
    if is_policy:
        _check_distribution(name, output)
    if not trains:
        return
    learn = nn.apply(call.in_learning, module, mutable=names or False)
    found = traced("in learning other than of the stream 'dropout'", learn, variables, *inputs,
                   rngs={"dropout": key})  # fmt: skip
    before = {collection: variables[collection] for collection in names}
    if names and _shapes(found[1]) != _shapes(before):
        raise InvalidValue(
            f"{name} changes the shape or dtype of {', '.join(names)} in learning: from "
            f"{_shapes(before)} to {_shapes(found[1])}"
        )


HOW_TO_TRAIN = (
    "Give its __call__ a keyword `train` (True in learning, False in acting) and use "
    "nn.BatchNorm(use_running_average=not train) and nn.Dropout(rate, deterministic=not train)"
)
ON_POLICY = (
    "An on-policy agent needs the same policy function in acting and in learning, and batch "
    "statistics and dropout change it. Use nn.LayerNorm or nn.GroupNorm, or an agent that supports "
    "them: DQN, PQN, DDPG, TD3, SAC or QSearch"
)


def _train(module: nn.Module) -> inspect.Parameter | None:
    """The parameter `train` of the module's `__call__`."""
    return inspect.signature(type(module).__call__).parameters.get("train")


def _other_mode(module: nn.Module) -> str | None:
    """A mode keyword of the module's `__call__` with a name other than `train`."""
    others = {"training", "is_training", "deterministic", "use_running_average"}
    parameters = inspect.signature(type(module).__call__).parameters
    # flax's own layers default to None, since their mode is also a field
    found = [x for x in others if x in parameters and parameters[x].default is not None]
    return min(found, default=None)


def _shapes(tree: PyTree) -> Any:
    return jax.tree.map(lambda x: f"{x.dtype}{x.shape}", tree)


def _check_distribution(name: str, output: Any) -> None:
    """Raises unless `output` (of shapes) is a distribution over 3 rows."""
    if not all(hasattr(output, method) for method in ("sample", "log_prob", "mode")):
        what = "an array" if hasattr(output, "shape") else f"a {type(output).__name__}"
        raise InvalidType(
            f"{name} returns {what}: it must return a distribution of "
            "jaxrl.distributions, or one with its methods"
        )

    def one(distribution: Any) -> Any:
        return distribution.log_prob(distribution.sample(jax.random.key(0)))

    if (shape := jax.eval_shape(one, output).shape) != (3,):
        raise InvalidValue(
            f"{name} maps 3 observations to a distribution over {shape}: it must be over [B], one "
            "action for each observation [B, ...]"
        )
