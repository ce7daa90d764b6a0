"""Counted work of training programs stays within its budgets, in `tests/data/work.json`.

A clock on a shared machine shows no small regression; counts show it exactly. After a change that
is meant to change them, on each Python:

    python -m benchmarks.work --write
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest
from helpers import work
from helpers.environments import Chain
from helpers.jaxprs import executed, num_bytes
from helpers.probes import cases
from helpers.programs import MORE_PROGRAMS, NUM_EVAL_EPISODES, PROGRAMS, Program
from jax.sharding import AbstractMesh, PartitionSpec

from jaxrl.agents import PPO

ALL = PROGRAMS | MORE_PROGRAMS


def budget(name):
    """The budget of a program with this jax; skips the test without one."""
    found = work.budgets().get(work.version())
    if found is None:
        pytest.skip(f"no budgets for jax {work.version()}: {work.RENEW}")
    return found.get(name, {})


@functools.cache
def traced(name):
    """The jaxpr of a program, and its quantities."""
    return work.traced(ALL[name])


@pytest.mark.parametrize("name", cases(ALL, *PROGRAMS))
def test_traced_work_keeps_its_budget(name):
    said = work.complaints(name, traced(name)[1], budget(name))
    assert not said, "\n".join(said)


@pytest.mark.thorough
@pytest.mark.optimized
@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].num_devices == 1])
def test_compiled_work_keeps_its_budget(name):
    said = work.complaints(name, work.compiled(traced(name)[0]), budget(name))
    assert not said, "\n".join(said)


def test_budgets_are_of_these_programs():
    for version, programs in work.budgets().items():
        assert set(programs) == set(ALL), f"jax {version}: {work.RENEW}"


def test_exact_budgets_are_the_same_with_every_jax():
    """Another number is a budget that was not renewed on one of the Pythons."""
    exact = [name for name, (tolerance, _) in work.QUANTITIES.items() if tolerance == 0]
    first, *others = (
        {name: [budget.get(quantity) for quantity in exact] for name, budget in there.items()}
        for there in work.budgets().values()
    )
    assert all(other == first for other in others), work.RENEW


# What is counted ----------------------------------------------------------------------------------


def test_every_operation_counts_as_often_as_it_runs():
    """A loop of 5 steps: a sine of 3 numbers, and a product of 3 x 3 by 3 numbers."""

    def one(x, _):
        return jnp.sin(x) @ jnp.ones((3, 3)), ()

    jaxpr = jax.make_jaxpr(lambda x: jax.lax.scan(one, x, length=5)[0])(jnp.ones(3)).jaxpr
    assert {e.primitive.name: n for e, n in executed(jaxpr)} == {
        "sin": 5, "broadcast_in_dim": 5, "dot_general": 5,
    }  # fmt: skip
    found = work.of_jaxpr(jaxpr)
    assert found["products"] == 5 * 2 * 3 * 3
    # Read and write 3; a literal and 9; read 3 and 9 and write 3: numbers of four bytes.
    assert found["bytes"] == 5 * 4 * ((3 + 3) + (1 + 9) + (3 + 9 + 3))
    assert found["equations"] == 3


def test_keys_and_flags_have_their_size():
    jaxpr = jax.make_jaxpr(lambda key, x: (key, x))(jax.random.key(0), jnp.zeros((2, 5), bool))
    assert num_bytes(jaxpr.jaxpr.invars) == 8 + 10


def test_arrays_that_devices_exchange_are_counted():
    """In each of 4 steps a sum of 6 numbers; then a mean of one."""

    def run():
        x = jnp.zeros(6) + jax.lax.axis_index("envs")

        def one(total, _):
            return total + jax.lax.psum(x, "envs"), ()

        total, _ = jax.lax.scan(one, jnp.zeros(6), length=4)
        return total + jax.lax.pmean(x[0], "envs")

    spread = jax.shard_map(
        run, mesh=AbstractMesh((2,), ("envs",)), in_specs=(), out_specs=PartitionSpec()
    )
    found = work.of_jaxpr(jax.make_jaxpr(spread)().jaxpr)
    assert (found["collectives"], found["exchanged"]) == (4 + 1, 4 * (4 * 6 + 1))


def test_products_of_ppo_are_those_of_its_networks():
    """By hand: each layer of actor and critic, wherever they see a row."""
    program = PROGRAMS["ppo"]
    agent, plan, spec = program.agent, program.agent.plan, program.env.spec
    inputs, rows = spec.observation.shape[0], plan.num_envs * plan.num_steps

    def forward(outputs):
        sizes = (inputs, *agent.hidden_sizes, outputs)
        return sum(2 * i * o for i, o in itertools.pairwise(sizes))

    actor, critic = forward(spec.action.num), forward(1)
    init = actor + critic  # flax applies a network to a row to know its shapes
    acts = (rows + NUM_EVAL_EPISODES * spec.max_steps) * actor
    values = (2 * rows + plan.num_envs) * critic  # V(obs), V(next_obs) at cuts and at the end
    first = 2 * inputs * agent.hidden_sizes[0]  # no gradient with respect to observations
    update = 3 * (actor + critic) - 2 * first
    by_hand = init + acts + values + plan.num_epochs * rows * update
    assert traced("ppo")[1]["products"] == by_hand


def test_each_update_exchanges_its_gradient_as_one_vector():
    """Among devices that share environments; before that the moments of advantages, no more."""
    program = PROGRAMS["ppo, 2 devices"]
    plan, agent = program.agent.plan, program.agent.bind(program.env.spec)
    params = jax.eval_shape(agent.init, jax.random.key(0)).params
    size = sum(x.size for x in jax.tree.leaves(params))
    updates = plan.num_epochs * plan.num_minibatches
    sizes = [
        x.aval.size
        for equation, times in executed(traced("ppo, 2 devices")[0].jaxpr.jaxpr)
        if work.COLLECTIVE.match(equation.primitive.name) and times == updates
        for x in equation.invars
    ]
    assert sizes == [3 * program.num_devices, size]


# What is noticed ----------------------------------------------------------------------------------


class Twice(PPO):
    """Computes the targets twice, and adds up half of each."""

    def prepare(self, state, trajectory, clock):
        both = [super(Twice, self).prepare(state, trajectory, clock) for _ in range(2)]
        return jax.tree.map(lambda x, y: x if x.dtype != float else 0.5 * (x + y), *both)


class TracedAgain(PPO):
    """Traces each update once more for the shapes of its metrics."""

    def update(self, state, batch, key, clock):
        if not getattr(TracedAgain, "inside", False):
            TracedAgain.inside = True
            jax.eval_shape(self.update, state, batch, key, clock)
            TracedAgain.inside = False
        return super().update(state, batch, key, clock)


@functools.cache
def tiny(kind):
    """The quantities of a tiny program of PPO or a subclass."""
    sizes = {"num_envs": 2, "num_steps": 8, "num_minibatches": 1, "num_epochs": 1}
    return work.traced(Program(kind(**sizes, hidden_sizes=(4,)), Chain()))[1]


@pytest.mark.parametrize(
    ("kind", "noticed"),
    [(Twice, {"products", "bytes", "equations"}), (TracedAgain, {"update traces"})],
)
def test_extra_work_is_noticed(kind, noticed):
    as_budget, found = tiny(PPO), tiny(kind)
    said = work.complaints("ppo", found, as_budget)
    assert {line.removeprefix("ppo: ").partition(" is ")[0] for line in said} == noticed
    assert work.complaints("ppo", as_budget, as_budget) == []


def test_complaints_name_program_quantity_budget_and_remedy():
    found = {"products": 300, "bytes": 103, "equations": 97, "collectives": 1}
    budget = {"products": 200, "bytes": 100, "equations": 100, "collectives": 0}
    products, size, fewer, new = work.complaints("sac", found, budget)
    assert products == (
        "sac: products is 300 (1.5 x), the budget 200 (FLOP in matrix products and convolutions). "
        "If the change is meant: python -m benchmarks.work --write 'sac'"
    )
    assert size.startswith("sac: bytes is 103 (1.03 x), the budget 100 +- 2% (")
    assert fewer.startswith("sac: equations is 97 (0.97 x), the budget 100 +- 2% (")
    assert new.startswith("sac: collectives is 1, the budget 0 (")
    within = {"products": 200, "bytes": 102, "equations": 98, "collectives": 0}
    assert work.complaints("sac", within, budget) == []
    (unknown,) = work.complaints("sac", {"products": 1}, {})
    assert (
        unknown == "sac: products has no budget. To set it: python -m benchmarks.work --write 'sac'"
    )
