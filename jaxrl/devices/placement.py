"""Spreads a run over a mesh of devices with two axes: members, and the environments of each.

A member usually stays on one device, without communication. Where there are more devices than
members, several can share the environments of each, see `devices.shards`. With several processes
(`devices.hosts`), each of them has the same number of devices in use.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl.devices import hosts
from jaxrl.devices.shards import ENVS
from jaxrl.errors import InvalidValue
from jaxrl.types import PyTree

MEMBERS = "members"
"""Axis of the mesh over which the members of a run are spread."""
BATCHED = PartitionSpec(MEMBERS)
"""Of an argument whose leaves have a leading axis of members."""
SHARED = PartitionSpec()
"""Of an argument that all members share."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which devices train the members of a run.

    Each device gets the same number of members. If the devices have room for more than M, the last
    member is repeated, and the repetitions are dropped from all results.

    Attributes:
      num_members: M.
      devices: the devices in use; those of the first members come first.
      available: number of devices that there are.
      shares: number of devices that share the environments of each member.
      num_envs: number of environments of a member on each device; None unless they are shared.
      why: why a single device is in use, if it is.
    """

    num_members: int
    devices: tuple[Any, ...]
    available: int
    shares: int = 1
    num_envs: int | None = None
    why: str = ""

    @classmethod
    def of(cls, num_members: int, num_devices: int | None = None) -> Self:
        """Chooses the devices for `num_members` members.

        Args:
          num_members: M.
          num_devices: how many devices to use at most; None for all.

        Raises:
          ValueError: there are fewer devices.
        """
        found = jax.devices()
        if num_devices is not None and num_devices > len(found):
            more = ""
            if found[0].platform == "cpu":
                more = f", or set JAX_NUM_CPU_DEVICES={num_devices} before jax starts"
            raise InvalidValue(
                f"devices is {num_devices}, but there {_are(len(found))}: use at most that{more}"
            )
        usable = num_devices or len(found)
        why = "one member stays on one device" if num_members == 1 else "as requested"
        if jax.config.jax_disable_jit:
            usable, why = 1, "jax_disable_jit is set"
        processes = hosts.count()
        if processes > 1:
            _check_processes(processes, num_members, num_devices)
        number = -(-num_members // -(-num_members // usable))
        # A single member spreads over processes only by sharing its environments, see `shared_by`.
        in_use = tuple(found[:1]) if number == 1 else _of_each_process(number, processes)
        return cls(num_members, in_use, len(found), why=why)

    @classmethod
    def of_host_environment(cls, num_members: int, num_devices: int | None, name: str) -> Self:
        """One device, for members that learn from an environment that steps outside JAX.

        Raises:
          ValueError: `num_devices` is more than 1, or there are several processes.
        """
        why = f"{name} steps outside jax"
        if (num_devices or 1) > 1:
            raise InvalidValue(
                f"devices is {num_devices}, but {why}, so that one device learns: leave it out"
            )
        if hosts.count() > 1:
            raise InvalidValue(f"there are {hosts.count()} processes, but {why}: use one")
        found = jax.devices()
        return cls(num_members, tuple(found[:1]), len(found), why=why)

    def shared_by(self, number: int, num_envs: int, why: str) -> Self:
        """The same, but `number` devices share the `num_envs` environments of each member."""
        if number == 1:
            return dataclasses.replace(self, why=why or self.why)
        devices = _of_each_process(self.member_devices * number, hosts.count())
        each = num_envs // number
        return dataclasses.replace(self, devices=devices, shares=number, num_envs=each)

    @property
    def member_devices(self) -> int:
        """Number of devices over which members are spread."""
        return len(self.devices) // self.shares

    @property
    def members_each(self) -> int:
        """Members of each device, counting repetitions."""
        return -(-self.num_members // self.member_devices)

    @property
    def num_padded(self) -> int:
        """Members of all devices, counting repetitions."""
        return self.members_each * self.member_devices

    @property
    def is_shared(self) -> bool:
        """Whether devices share the environments of a member."""
        return self.shares > 1

    @property
    def is_spread(self) -> bool:
        """Whether there is more than one device."""
        return len(self.devices) > 1

    def __str__(self) -> str:
        number = len(self.devices)
        if number == 1:
            return f"1 of {self.available} ({self.why})" if self.available > 1 else "1"
        of = f"{number} of {self.available}" if number < self.available else f"all {number}"
        each = "1 member" if self.members_each == 1 else f"{self.members_each} members"
        share = each if self.num_padded == self.num_members else f"at most {each}"
        if self.num_envs is None:
            return f"{of}, {share} each"
        shared = _environments(self.num_envs)
        if self.num_members == 1:
            return f"{of}, {shared} each"
        return f"{of}, {shared} of {share} each"

    @functools.cached_property
    def _mesh(self) -> Mesh:
        shape = {MEMBERS: self.member_devices, ENVS: self.shares}
        axes = [axis for axis, size in shape.items() if size > 1]
        return Mesh(np.asarray(self.devices).reshape([shape[axis] for axis in axes]), axes)

    def spread(
        self, function: Callable[..., Any], in_specs: Sequence[Any], out_specs: Any
    ) -> Callable[..., Any]:
        """The function, which each device runs on its own members and environments.

        Args:
          function: vmapped over members; its results have a leading axis of members.
          in_specs: for each argument a spec or a tree of them.
          out_specs: likewise for the results.
        """
        if not self.is_spread:
            return function
        # One axis inside the other: members do not communicate, so that what differs is tracked
        # for environments alone.
        outer, *_ = axes = self._mesh.axis_names
        for axis in reversed(axes):
            function = jax.shard_map(
                function,
                mesh=self._mesh if axis == outer else None,
                in_specs=_along(axis, tuple(in_specs)),
                out_specs=_along(axis, out_specs),
                axis_names={axis},
                check_vma=axis == ENVS,
            )
        return function

    @property
    def batched(self) -> PartitionSpec:
        """The spec of arrays with an axis of members."""
        return BATCHED if self.member_devices > 1 else SHARED

    def axis_of_envs(self, *, vmapped: bool) -> PartitionSpec:
        """The spec of arrays with an axis of environments, the first after that of members."""
        if not self.is_shared:
            return self.batched
        return PartitionSpec(*self.batched or (None,), ENVS) if vmapped else PartitionSpec(ENVS)

    def place(self, tree: PyTree, specs: Any = None) -> PyTree:
        """Puts arrays `[M, ...]` on the devices of their members, repeating the last member.

        With `specs`, a tree of them, only leaves with an axis of members are repeated; those
        without any axis are copied to every device.
        """
        if not self.is_spread:
            return tree
        specs = self.batched if specs is None else specs
        number = self.num_padded - self.num_members

        def one(spec: PartitionSpec, x: Any) -> Any:
            if number and tuple(spec)[:1] == tuple(BATCHED):
                x = jnp.concatenate([x, jnp.repeat(x[-1:], number, axis=0)])
            return put(x, NamedSharding(self._mesh, spec))

        put = jax.device_put if hosts.count() == 1 else hosts.put
        return _map_with_specs(one, specs, tree)

    def shapes(self, tree: PyTree, specs: Any) -> PyTree:
        """Shapes with the shardings of arrays in their place.

        Otherwise XLA chooses, and copies to every device what a program ignores.
        """
        if not self.is_spread:
            return tree

        def one(spec: PartitionSpec, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=NamedSharding(self._mesh, spec), weak_type=x.weak_type
            )

        return _map_with_specs(one, specs, tree)

    def trim(self, tree: PyTree) -> PyTree:
        """Drops the repetitions of the last member from arrays with an axis of members."""
        if self.num_padded == self.num_members:
            return tree
        return jax.tree.map(lambda x: x[: self.num_members], tree)

    def readable(self, tree: PyTree) -> PyTree:
        """Results of the programs that this process can read, also if others computed them."""
        return tree if hosts.count() == 1 else hosts.whole(tree)

    def collect(self, tree: PyTree) -> PyTree:
        """The state of all members, for the process that writes it.

        With several processes, members are sent one by one, since their replay buffers may not fit
        into the memory of one device. The others get None.
        """
        if hosts.count() == 1:
            return self.trim(tree)
        is_everywhere = all(x.sharding.is_fully_replicated for x in jax.tree.leaves(tree))
        if self.is_shared or is_everywhere:  # as after `trim`
            found = self.trim(hosts.whole(tree))
            return found if hosts.is_first() else None
        rows: list[PyTree] = []
        for i in range(self.num_members):
            member = hosts.whole(self._member(tree, np.int32(i)))
            if hosts.is_first():
                rows.append(member)
        return jax.tree.map(lambda *x: _stacked(x), *rows) if rows else None

    @functools.cached_property
    def _member(self) -> Callable[..., Any]:
        """A member of a tree of all members, on every device."""
        return jax.jit(
            jax.shard_map(
                functools.partial(hosts.row, axis=MEMBERS),
                mesh=self._mesh,
                in_specs=(BATCHED, SHARED),
                out_specs=SHARED,
            )
        )


def _check_processes(processes: int, num_members: int, num_devices: int | None) -> None:
    """Raises ValueError where a process would have nothing to do."""
    if jax.config.jax_disable_jit:
        raise InvalidValue("jax_disable_jit is set: debug in a single process")
    each = {sum(d.process_index == i for d in jax.devices()) for i in range(processes)}
    if len(each) > 1:
        numbers = " and ".join(map(str, sorted(each)))
        raise InvalidValue(f"processes have {numbers} devices: give each the same number")
    if num_devices is not None and num_devices % processes:
        raise InvalidValue(
            f"devices is {num_devices}, but there are {processes} processes, which share them "
            f"evenly: use a multiple of {processes}"
        )
    if 1 < num_members < processes:
        raise InvalidValue(
            f"{num_members} members cannot keep {processes} processes busy: start at most "
            f"{num_members}"
        )


def _of_each_process(number: int, processes: int) -> tuple[Any, ...]:
    """At least `number` devices, equally many of each process."""
    devices = jax.devices()
    if processes == 1:
        return tuple(devices[:number])
    of_process = [[d for d in devices if d.process_index == i] for i in range(processes)]
    return tuple(d for own in of_process for d in own[: -(-number // processes)])


def _map_with_specs(function: Callable[..., Any], specs: Any, tree: PyTree) -> PyTree:
    """`function(spec, leaf)` for each leaf of a tree, of which `specs` has the upper part."""
    return jax.tree.map(
        lambda spec, part: jax.tree.map(functools.partial(function, spec), part), specs, tree
    )


def _stacked(rows: Sequence[Any]) -> Any:
    is_key = jnp.issubdtype(rows[0].dtype, jax.dtypes.prng_key)
    return jnp.stack(rows) if is_key else np.stack(rows)


def _environments(number: int) -> str:
    return "1 environment" if number == 1 else f"{number:,} environments"


def _are(number: int) -> str:
    return "is 1 device" if number == 1 else f"are {number} devices"


def _along(axis: str, specs: Any) -> Any:
    """Specs with this axis of the mesh alone."""

    def one(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*(name if name == axis else None for name in spec))

    return jax.tree.map(one, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))
