"""A flax module of the user's own inside an agent's network: how it is called, what it may hold.

It always sees one leading batch axis, `[B, *obs]`, in acting, in values and in losses, whatever
axes the agent works on: `x.reshape(x.shape[0], -1)` flattens an observation, and layers that take
axis 0 as the batch (GroupNorm) do not mix what belongs to other rows.

Only its `params` are trained. Agents that learn action values (`trains` below: DQN and its kin,
FittedQ, OnlineQ, PQN, DDPG, TD3, SAC, QSearch) carry other collections, such as BatchNorm's
`batch_stats`, beside them, and pass a random stream "dropout". If `__call__` takes a keyword
`train`, it is True for the network that a gradient step changes, whose collections may change with
it, and False in acting, targets, evaluation and export. On-policy agents refuse collections and
random streams: a policy must learn as the same function that acted, or the first importance ratio
is not 1.
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
    """`module(*inputs)`, for a module that takes any leading axes."""
    return module(*inputs)


@dataclasses.dataclass(frozen=True)
class OneBatchAxis:
    """Calls a module on inputs whose leading axes are made one, and gives them back to its output.

    Attributes:
      shapes: of the leaves of one unbatched observation; tells which axes are leading ones.
      train: the keyword to call it with; None for a module that takes none.
    """

    shapes: tuple[tuple[int, ...], ...]
    train: bool | None = None

    @classmethod
    def of(cls, module: nn.Module, spec: EnvSpec, *, trains: bool) -> Self:
        """For acting; `trains`: the agent tells the module by `train` when it learns."""
        return cls(leaf_shapes(spec), False if trains and _train(module) is not None else None)

    @property
    def in_learning(self) -> Self:
        """The same with `train=True`, where the module takes it."""
        return dataclasses.replace(self, train=None if self.train is None else True)

    def __call__(self, module: nn.Module, obs: PyTree, *others: PyTree) -> Any:
        """The output of `module(obs, *others)`: features `[..., F]` or a distribution `[...]`.

        Args:
          module: from `[B, ...]` to features `[B, F]` or a distribution over `[B]`.
          obs: leaves `[..., *shape]`.
          others: trees with the same leading axes.

        Raises:
          ValueError: features have another shape.
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
        known = isinstance(num, int)  # a program is exported for any number of rows
        if output.ndim != 2 or (known and output.shape[0] != num):
            raise InvalidValue(
                f"{type(module).__name__} makes {output.shape} of {num} observations: a torso's "
                "features must be [B, F], one row for each observation [B, ...]"
            )
        return output if one else output.reshape(*leading, output.shape[-1])


class Unflattened(struct.PyTreeNode):
    """A distribution over rows `[B]`, seen as one over `[*leading]` with B entries.

    Attributes:
      rows: the distribution; what it takes and returns are trees `[B, ...]`.
      leading: the axes to show instead.
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
    """The shapes of the leaves of one observation, without its action mask.

    Raises:
      ValueError: a network cannot read the observation: it has no leaf, or a complex one.
    """
    leaves = named_leaves(split_mask(spec.observation)[0])
    if not leaves:
        raise InvalidValue(
            f"spec.observation is {spec.observation!r}, and a network needs an array: where there "
            "is nothing to see, give a constant, jnp.ones(1)"
        )
    for name, x in leaves.items():
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise InvalidValue(
                f"spec.observation{name and f'.{name}'} is {x.dtype}, and networks take real "
                "numbers: give the real and the imaginary part"
            )
    return tuple(tuple(x.shape) for x in leaves.values())


def learning_pass(
    network: Any, variables: PyTree, *inputs: PyTree, key: Key, rngs: dict[str, Key] | None = None
) -> tuple[Any, PyTree]:
    """`network.apply` as it learns: the output, and the collections that the pass has changed.

    Args:
      network: a module with the field `call`, which calls the user's own module.
      variables: its variables.
      key: of the random stream "dropout".
      rngs: other streams.
    """
    if isinstance(network.call, OneBatchAxis):
        network = network.clone(call=network.call.in_learning)
        rngs = {**(rngs or {}), "dropout": key}
    if names := carried_names(variables):
        return network.apply(variables, *inputs, rngs=rngs, mutable=names)
    return network.apply(variables, *inputs, rngs=rngs), {}


# Checks -------------------------------------------------------------------------------------------


def check_module(agent: Any, field: str, spec: EnvSpec, *, trains: bool) -> None:
    """Raises ValueError or TypeError where the agent cannot use the module in that field.

    The module is traced, nothing is computed.

    Args:
      field: `torso`, or `policy_network`, which sees the mask of actions, too.
      trains: the agent carries other collections than params, and has a training mode.
    """
    module, owner = getattr(agent, field), type(agent).__name__
    if module is None:
        return
    if not isinstance(module, nn.Module):
        raise InvalidType(f"{field} is {module!r}: give an instance of a flax.linen.Module")
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
        except ValueError as error:  # of BatchNorm and Dropout, who ask for a mode
            if "must be passed to the constructor or at call time" not in str(error):
                raise
            raise InvalidValue(f"{name} has a layer without a mode: {error} {remedy}") from error

    variables = traced("when it is built", nn.init(call, module), key, *inputs)
    names = carried_names(variables)
    if names and not trains:
        raise InvalidValue(f"{name} has {', '.join(names)} beside its params. {ON_POLICY}")
    if names and parameter is None and (other := _other_mode(module)):
        raise InvalidValue(
            f"{name} has {', '.join(names)}, and its keyword {other} is never set, so that they "
            f"would never change. {HOW_TO_TRAIN}"
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
            f"{name} changes the shape or dtype of {', '.join(names)} as it learns: from "
            f"{_shapes(before)} to {_shapes(found[1])}"
        )


HOW_TO_TRAIN = (
    "Give its __call__ a keyword `train`, which is True in learning and False in acting, and use "
    "nn.BatchNorm(use_running_average=not train) and nn.Dropout(rate, deterministic=not train)"
)
ON_POLICY = (
    "An on-policy agent learns about the very function that acted, which batch statistics and "
    "dropout would change in between. Use nn.LayerNorm or nn.GroupNorm, or an agent that carries "
    "them: DQN, PQN, DDPG, TD3, SAC or QSearch"
)


def _train(module: nn.Module) -> inspect.Parameter | None:
    """The parameter `train` of the module's `__call__`."""
    return inspect.signature(type(module).__call__).parameters.get("train")


def _other_mode(module: nn.Module) -> str | None:
    """A keyword of the module's `__call__` that tells of a mode by another name than `train`."""
    others = {"training", "is_training", "deterministic", "use_running_average"}
    parameters = inspect.signature(type(module).__call__).parameters
    # None is the default of flax's own layers, whose mode is a field, too
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
            f"{name} makes a distribution over {shape} of 3 observations: it must be over [B], an "
            "action for each observation [B, ...]"
        )
