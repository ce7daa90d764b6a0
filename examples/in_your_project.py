"""Training as a function inside your own JAX program: your network, your environment, your `jit`.

    python examples/in_your_project.py
    python examples/in_your_project.py --total-steps 400_000 --rooms 9

`design` below is an ordinary jitted function. For each of several room layouts it trains an agent
and returns what your program needs, here the mean length of the path and an example. Nothing leaves
the device in between, and nothing is written to disk.
"""

import argparse

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

import jaxrl

MOVES = jnp.array([[0, 1], [0, -1], [1, 0], [-1, 0]], jnp.int32)


class Room(struct.PyTreeNode):
    """A 7 x 7 room with a wall in the middle that has one door; the goal is on the right.

    Attributes:
      door: the row of the door; a leaf, so one program trains for every layout.
    """

    door: jax.Array
    size = 7
    spec = jaxrl.EnvSpec(
        {
            "image": jax.ShapeDtypeStruct((7, 7, 2), jnp.float32),  # the wall and our position
            "time": jax.ShapeDtypeStruct((), jnp.float32),
        },
        jaxrl.Discrete(4),
        max_steps=50,
    )

    def walls(self):
        rows, columns = jnp.indices((self.size, self.size))
        return (columns == self.size // 2) & (rows != self.door)

    def look(self, position, time):
        here = jnp.zeros((self.size, self.size)).at[position[0], position[1]].set(1.0)
        image = jnp.stack([self.walls().astype(jnp.float32), here], axis=-1)
        return {"image": image, "time": time / jnp.float32(self.spec.max_steps)}

    def reset(self, key):
        position = jnp.stack([jax.random.randint(key, (), 0, self.size), jnp.int32(0)])
        return (position, jnp.int32(0)), self.look(position, jnp.int32(0))

    def step(self, key, state, action):
        position, time = state
        target = jnp.clip(position + MOVES[action], 0, self.size - 1)
        blocked = self.walls()[target[0], target[1]]
        position, time = jnp.where(blocked, position, target), time + 1
        there = position[1] == self.size - 1
        timestep = jaxrl.Timestep(
            obs=self.look(position, time),
            reward=jnp.where(there, 1.0, -0.02),
            terminated=there,
            truncated=~there & (time >= self.spec.max_steps),
        )
        return (position, time), timestep


class Torso(nn.Module):
    """Your own flax module, from a batch of observations `[B, ...]` to features `[B, F]`."""

    @nn.compact
    def __call__(self, obs):
        image, time = obs["image"], obs["time"]
        flat = image.reshape(image.shape[0], -1)
        x = jnp.concatenate([flat, time[:, None]], axis=-1)
        return nn.relu(nn.Dense(64)(nn.relu(nn.Dense(64)(x))))


def walk(policy, env, key, num_steps=20):
    """Your own use of the policy: the path in one room, `int32[num_steps, 2]`."""
    state, obs = env.reset(key)

    def one(state_obs, key):
        state, obs = state_obs
        # A policy acts for a batch of environments: here a single one.
        _, action, _ = policy((), jax.tree.map(lambda x: x[None], obs), key)
        next_state, timestep = env.step(key, state, action[0])
        return (next_state, timestep.obs), state[0]

    return jax.lax.scan(one, (state, obs), jax.random.split(key, num_steps))[1]


def make_design(total_steps: int):
    agent = jaxrl.agents.PPO(num_envs=32, num_steps=32, learning_rate=1e-3, torso=Torso())

    def design(key, door):
        """Trains and plays in a room with that door: (mean path length, a path)."""
        train_key, play_key, walk_key = jax.random.split(key, 3)
        env = Room(door)
        training = jaxrl.Training.create(agent, env, total_steps=total_steps)
        state, _ = jaxrl.train(agent, env, train_key, total_steps=total_steps, num_evaluations=0)
        policy = training.policy(state)
        episodes = jaxrl.evaluate(policy, env, play_key, num_episodes=100)
        return episodes.lengths.mean(), walk(policy, env, walk_key)

    return design


def draw(env, way):
    """The room as text: `#` walls, `o` the path."""
    picture = [["#" if wall else "." for wall in row] for row in env.walls().tolist()]
    for row, column in way.tolist():
        picture[row][column] = "o"
        if column == env.size - 1:
            break
    return "\n".join("  " + " ".join(row) for row in picture)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--total-steps", type=int, default=200_000, help="(default: 200000)")
    parser.add_argument("--rooms", type=int, default=7, help="number of layouts (default: 7)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    options = parser.parse_args()

    doors = jnp.arange(options.rooms) % Room.size
    keys = jax.random.split(jax.random.key(options.seed), options.rooms)
    design = jax.jit(jax.vmap(make_design(options.total_steps)))
    lengths, ways = design(keys, doors)
    for door, length in zip(doors, lengths, strict=True):
        print(f"door in row {door}: {length:5.1f} steps on average")
    best = int(jnp.argmin(lengths))
    print(f"the best door is in row {doors[best]}; a path through that room:")
    print(draw(Room(doors[best]), ways[best]))


if __name__ == "__main__":
    main()
