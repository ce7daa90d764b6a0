"""Spreads a run over devices: its members, or the environments of a single one.

A member usually stays on one device, without communication. Where there is only one, devices can
share its environments, see `devices.shards`. With several processes (`devices.hosts`), each of them
has the same number of devices in use.
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


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which devices train the members of a run.

    Each device gets the same number of members. If the devices have room for more than M, the last
    member is repeated, and the repetitions are dropped from all results.

    Attributes:
      num_members: M.
      devices: the devices in use.
      available: number of devices that there are.
      num_envs: with several devices for a single member, the environments of each; else None.
      why: why a single device is in use, if it is.
    """

    num_members: int
    devices: tuple[Any, ...]
    available: int
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
        each = -(-num_members // usable)
        in_use = _of_each_process(-(-num_members // each), processes)
        return cls(num_members, in_use, len(found), why=why)

    def shared_by(self, number: int, num_envs: int, why: str) -> Self:
        """The same, but `number` devices share the `num_envs` environments of the only member."""
        if number == 1:
            return dataclasses.replace(self, why=why or self.why)
        devices = _of_each_process(number, hosts.count())
        return dataclasses.replace(self, devices=devices, num_envs=num_envs // number)

    @property
    def members_each(self) -> int:
        """Members of each device, counting repetitions."""
        return self.num_members if self.is_shared else -(-self.num_members // len(self.devices))

    @property
    def num_padded(self) -> int:
        """Members of all devices, counting repetitions."""
        return self.members_each * (1 if self.is_shared else len(self.devices))

    @property
    def is_shared(self) -> bool:
        """Whether devices share the environments of a member."""
        return self.num_envs is not None

    @property
    def is_spread(self) -> bool:
        """Whether there is more than one device."""
        return len(self.devices) > 1

    def __str__(self) -> str:
        number = len(self.devices)
        if number == 1:
            return f"1 of {self.available} ({self.why})" if self.available > 1 else "1"
        of = f"{number} of {self.available}" if number < self.available else f"all {number}"
        if self.num_envs is not None:
            return f"{of}, {_environments(self.num_envs)} each"
        each = "1 member" if self.members_each == 1 else f"{self.members_each} members"
        share = each if self.num_padded == self.num_members else f"at most {each}"
        return f"{of}, {share} each"

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return Mesh(np.asarray(self.devices), (ENVS if self.is_shared else MEMBERS,))

    def spread(
        self, function: Callable[..., Any], in_specs: Sequence[Any], out_specs: Any
    ) -> Callable[..., Any]:
        """The function, which each device runs on its own members, or on its own environments.

        Args:
          function: vmapped over members; its results have a leading axis of members.
          in_specs: for each argument a spec or a tree of them.
          out_specs: likewise for the results.
        """
        if not self.is_spread:
            return function
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=tuple(in_specs),
            out_specs=out_specs,
            check_vma=self.is_shared,  # else nothing is communicated
        )

    def axis_of_envs(self, *, vmapped: bool) -> PartitionSpec:
        """The spec of arrays with an axis of environments, the first after that of members."""
        if not self.is_shared:
            return BATCHED
        return PartitionSpec(None, ENVS) if vmapped else PartitionSpec(ENVS)

    @property
    def batched(self) -> PartitionSpec:
        """The spec of arrays with an axis of members."""
        return SHARED if self.is_shared else BATCHED

    def place(self, tree: PyTree, specs: Any = None) -> PyTree:
        """Puts arrays `[M, ...]` on the devices of their members, repeating the last member.

        With `specs`, a tree of `BATCHED` and `SHARED`, only the batched leaves have an axis of
        members; the others are copied to every device.
        """
        if not self.is_spread:
            return tree
        specs = self.batched if specs is None else specs
        number = self.num_padded - self.num_members

        def one(spec: PartitionSpec, x: Any) -> Any:
            if spec == BATCHED and number:
                x = jnp.concatenate([x, jnp.repeat(x[-1:], number, axis=0)])
            return put(x, NamedSharding(self._mesh, spec))

        put = jax.device_put if hosts.count() == 1 else hosts.put

        return jax.tree.map(
            lambda spec, part: jax.tree.map(functools.partial(one, spec), part), specs, tree
        )

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
            found = hosts.whole(tree)
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


BATCHED = PartitionSpec(MEMBERS)
"""Of an argument whose leaves have a leading axis of members."""
SHARED = PartitionSpec()
"""Of an argument that all members share."""


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


def _stacked(rows: Sequence[Any]) -> Any:
    is_key = jnp.issubdtype(rows[0].dtype, jax.dtypes.prng_key)
    return jnp.stack(rows) if is_key else np.stack(rows)


def _environments(number: int) -> str:
    return "1 environment" if number == 1 else f"{number:,} environments"


def _are(number: int) -> str:
    return "is 1 device" if number == 1 else f"are {number} devices"
