"""The programs of a run on a host environment, called like those of `jaxrl.runs.programs`."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.engine import hosted
from jaxrl.engine.acting import start_carry
from jaxrl.engine.actors import Actors, close_all, watched
from jaxrl.engine.checked_vector import Checked, EnvironmentFault
from jaxrl.engine.collector import Collected, Collector, Shape
from jaxrl.engine.evaluate import Episodes
from jaxrl.engine.host_episodes import copies_for, play, seeds_of_copies
from jaxrl.engine.learners import TrainState
from jaxrl.engine.metrics import Divergence, IterationMetrics, totals
from jaxrl.engine.training import Training
from jaxrl.environment import Hosted
from jaxrl.runs.events import Compiled
from jaxrl.runs.members import Members
from jaxrl.runs.programs import Programs
from jaxrl.runs.run_options import RunOptions
from jaxrl.types import Key, PyTree, Stream, Trajectory, Transition


class HostPrograms(Programs):
    """Rollouts and evaluations are Python loops; acting and learning are compiled.

    Members are trained side by side, each with its own copies of the environment.
    """

    actors: Actors | None = None
    eval_vector: Checked | None = None

    def __init__(self, members: Members, options: RunOptions):
        self.options = options
        envs, eval_envs = members.training.envs, members.training.eval_envs
        self.num_members = None if members.key.ndim == 0 else len(members)
        copies = copies_for(eval_envs.num_envs, eval_envs.spec.max_steps)
        self.eval_shape = Shape(self.num_members, copies, 0)
        steps = getattr(members.training.agent.plan, "num_steps", 0)
        each = envs.num_envs // options.actors
        self.shapes = [
            Shape(self.num_members, each, steps, number * each) for number in range(options.actors)
        ]
        super().__init__(members)

    # Compiling ------------------------------------------------------------------------------------

    def _compile(self, members: Members) -> None:
        began = time.perf_counter()
        training, key, number = self.training, self.key, np.int32(0)
        init = jax.jit(members.vmap(Training.init, 0)).lower(training, key)
        state = init.out_info
        lowered = {"init": init, "act_to_evaluate": self._lower_evaluation(members, state)}
        if hosted.collects(training):
            lowered["act"] = self._lower_act(members, state)
            lowered["learn"] = self._lower_learn(members, state, lowered["act"].out_info)
        else:  # offline
            chunk = jax.jit(members.vmap(Training.chunk, 0, 0, None, None), donate_argnums=1)
            lowered["chunk"] = chunk.lower(training, state, key, number, number)
            self._metrics = lowered["chunk"].out_info[1]
        traced = time.perf_counter()
        self.programs = {name: program.compile() for name, program in lowered.items()}
        seconds = traced - began, time.perf_counter() - traced
        self.compiled = Compiled(*seconds, str(self.placement))
        self._hold(init=self.programs["init"], chunk=self._chunk, evaluate=self._evaluate)

    def _observations(self, *leading: int) -> PyTree:
        """Shapes of observations with these leading axes."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype),
            self.training.envs.spec.observation,
        )

    def _lower_evaluation(self, members: Members, state: TrainState) -> Any:
        batch, number = self.eval_shape.batch, np.int32(0)
        carry = jax.eval_shape(lambda: self._carry_to_evaluate())
        act = jax.jit(members.vmap(hosted.act_to_evaluate, 0, 0, 0, 0, 0, 0, None, None))
        return act.lower(
            self.training, state.agent, state.stats, carry, jax.ShapeDtypeStruct(batch, bool),
            self._observations(*batch), self.key, number, number,
        )  # fmt: skip

    def _carry_to_evaluate(self) -> PyTree:
        """A carry to start evaluations with; what is in it does not matter."""
        training, shape = self.training, self.eval_shape
        explore = training.options.eval_mode == "sample"
        carry = start_carry(training.agent, shape.num_envs, explore=explore)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape.batch, *x.shape[1:])), carry)

    def _lower_act(self, members: Members, state: TrainState) -> Any:
        """`hosted.act`; what an actor plays with is a list of only those arrays that it uses."""
        shape, at = self.shapes[0], jax.ShapeDtypeStruct((3,), np.int32)
        of_one = functools.partial(hosted.act, num_actors=self.options.actors)
        act_of = members.vmap(of_one, 0, 0, 0, 0, 0, 0, None)
        leaves, played = jax.tree.flatten((self.training, state.agent, state.stats, self.key))

        def act_with(leaves, carry, first, obs, at):
            training, agent, stats, key = jax.tree.unflatten(played, leaves)
            return act_of(training, agent, stats, carry, first, obs, key, at)

        carry = jax.eval_shape(lambda x: self._part(x, shape), state.carry)
        first = jax.ShapeDtypeStruct(shape.batch, bool)
        obs = self._observations(*shape.batch)
        self.used = _used(jax.make_jaxpr(act_with)(leaves, carry, first, obs, at), len(leaves))

        def act(used, *rest):
            found = dict(zip(self.used, used, strict=True))
            unused = {i: leaves[i] for i in range(len(leaves)) if i not in found}
            found |= {i: jnp.zeros(x.shape, x.dtype) for i, x in unused.items()}
            return act_with([found[i] for i in range(len(leaves))], *rest)

        used = [leaves[i] for i in self.used]
        return jax.jit(act).lower(used, carry, first, obs, at)

    def _played(self, state: TrainState) -> list[Any]:
        """What an actor plays with, for the program `act`."""
        leaves = jax.tree.leaves((self.training, state.agent, state.stats, self.key))
        return [leaves[i] for i in self.used]

    def _lower_learn(self, members: Members, state: TrainState, acted: Any) -> Any:
        plan: Any = self.training.agent.plan
        members_axis = self.shapes[0].batch[:-1]
        size = (*members_axis, plan.num_steps, plan.num_envs)

        def over_time(x: Any) -> Any:
            return jax.ShapeDtypeStruct((*size, *x.shape[len(members_axis) + 1 :]), x.dtype)

        kinds: Any = (bool, np.float32, np.int32)
        flags, numbers, counts = (
            over_time(jax.ShapeDtypeStruct((*members_axis, 1), k)) for k in kinds
        )
        obs = self._observations(*size)
        action, extras = jax.tree.map(over_time, acted[1:])
        steps = Transition(obs, action, numbers, flags, flags, obs, extras)
        trajectory = Trajectory(steps, flags, state.carry, counts)
        donated = state.replace(carry=())  # the carry, which actors go on with, is not
        given = (
            self.training, donated, trajectory, numbers, counts, flags, self.key, np.int32(0)
        )  # fmt: skip
        in_axes = (0, 0, 0, 0, 0, 0, None)
        self._metrics = jax.eval_shape(members.vmap(hosted.learn, *in_axes), *given)[1]
        learn = members.vmap(hosted.learn_in_short, *in_axes)
        # Actors that lag behind still play with an older state.
        return jax.jit(learn, donate_argnums=1 if self.options.actor_lag == 0 else ()).lower(*given)

    # Running --------------------------------------------------------------------------------------

    def _part(self, tree: PyTree, shape: Shape) -> PyTree:
        """An actor's part of leaves `[N, ...]`, or `[M, N, ...]`."""
        part = slice(shape.first_env, shape.first_env + shape.num_envs)
        at = part if shape.num_members is None else (slice(None), part)
        return jax.tree.map(lambda x: x[at], tree)

    def _begin(self, state: TrainState, start: int) -> Actors:
        """Starts the actors, with new episodes in all environments."""
        training, act = self.training, self.programs["act"]
        env, resets = training.envs.env, getattr(training.agent.plan, "reset_each_iteration", False)
        seeds = seeds_of_copies(self.key, Stream.RESET, start, training.envs.num_envs)
        collectors = []
        for number, shape in enumerate(self.shapes):
            vector = Checked.start(env.host, shape.rows)
            carry, own = self._part((state.carry, seeds), shape)
            given: Any = {"seeds": own.reshape(shape.rows), "carry": carry, "resets": resets}
            collectors.append(Collector(vector, act, shape, number, **given))
        actors = Actors(collectors, self.options.actor_lag, self.options.env_timeout)
        actors.start(start, training.num_iterations)
        return actors

    def _chunk(
        self, training: Training, state: TrainState, key: Key, start: Any, stop: Any
    ) -> tuple[TrainState, IterationMetrics, Divergence]:
        if not hosted.collects(training):
            return self.programs["chunk"](training, state, key, start, stop)
        self.reached = int(start)
        vectors: list[Any] = []
        try:
            if self.actors is None:
                self.actors = self._begin(state, int(start))
            for iteration in range(int(start), int(stop)):
                self.actors.publish(iteration, self._played(state))
                found = self.actors.collected(members=self.num_members is not None)
                state, vector = self._learn(state, found, iteration)
                vectors.append(vector)
                self.reached = iteration + 1
        except EnvironmentFault as fault:
            self.fault = fault
        return state, *self._counted(vectors, int(start))

    def _learn(self, state: TrainState, found: Collected, iteration: int) -> Any:
        state = state.replace(envs=found.envs, carry=())
        learned, vector = self.programs["learn"](
            self.training, state, found.trajectory, found.returns, found.lengths, found.ended,
            self.key,
            np.int32(iteration),
        )  # fmt: skip
        return learned.replace(carry=found.carry), vector

    def _counted(self, vectors: list[Any], start: int) -> tuple[IterationMetrics, Divergence]:
        """The sum of the metrics of some iterations, and their first divergence."""
        structure: Any = jax.tree.structure(self._metrics)
        members, num = self.shapes[0].batch[:-1], structure.num_leaves
        each = np.asarray(vectors, np.float64).reshape(len(vectors), *members, num)
        total = jax.tree.unflatten(structure, list(np.moveaxis(each.sum(0), -1, 0)))
        watched = totals(jax.tree.unflatten(structure, range(num)))
        first = np.full(members, -1)
        names: dict[str, Any] = {name: np.zeros(members, bool) for name in watched}
        for i in np.flatnonzero(~np.isfinite(each).all(axis=tuple(range(1, each.ndim)))):
            bad = {name: ~np.isfinite(each[i, ..., at]) for name, at in watched.items()}
            new = np.any(list(bad.values()), axis=0) & (first < 0)
            first = np.where(new, start + i, first)
            names = {name: np.where(new, bad[name], x) for name, x in names.items()}
        found: Any = first
        return total, Divergence(found, names)

    def _evaluate(
        self, training: Training, state: TrainState, key: Key, iteration: Any
    ) -> Episodes:
        """Plays `num_eval_episodes` episodes of each member."""
        shape, act = self.eval_shape, self.programs["act_to_evaluate"]
        if self.eval_vector is None:
            self.eval_vector = Checked.start(training.eval_envs.env.host, shape.rows)
        number = np.int32(iteration)

        def acting(carry, first, obs, step):
            return act(training, state.agent, state.stats, carry, first, obs, key, number, step)

        seeds = seeds_of_copies(key, Stream.EVALUATE, int(iteration), shape.num_envs).reshape(
            shape.rows
        )
        carry, num_episodes = self._carry_to_evaluate(), training.eval_envs.num_envs
        vector = self.eval_vector
        playing = functools.partial(play, vector, acting, shape, carry, seeds, num_episodes)
        return watched(vector, self.options.env_timeout, playing)

    def place_state(self, state: TrainState) -> TrainState:
        return jax.device_put(state, self.placement.devices[0])

    @property
    def largest(self) -> Any:
        return self.programs["learn" if "learn" in self.programs else "chunk"]

    def named(self) -> dict[str, Any]:
        names = {"act": "acting", "learn": "learning", "chunk": "training"}
        programs = {names[name]: x for name, x in self.programs.items() if name in names}
        return {**programs, "evaluation": self.programs["act_to_evaluate"]}

    def close(self) -> None:
        """Ends the actors and closes all environments."""
        if self.actors is not None:
            self.actors.close()
        if self.eval_vector is not None:
            close_all([self.eval_vector])


def programs_of(members: Members, options: RunOptions) -> Programs:
    """The programs of a run, on a compiled environment or on one that steps outside JAX."""
    if isinstance(members.training.envs.env, Hosted):
        return HostPrograms(members, options)
    return Programs(members)


def _used(jaxpr: Any, number: int) -> list[int]:
    """Which of the first `number` arguments a program uses."""
    uses = {*map(id, jaxpr.jaxpr.outvars)}
    for equation in jaxpr.jaxpr.eqns:
        uses.update(map(id, equation.invars))
    return [i for i, x in enumerate(jaxpr.jaxpr.invars[:number]) if id(x) in uses]
