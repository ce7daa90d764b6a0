"""Torsos, recurrent cores and heads: initialisation, leading axes, memory, masks, sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents import DDPG, DQN, PPO, SAC, TRPO
from jaxrl.distributions import Categorical, DiagonalGaussian, MultiCategorical, Product
from jaxrl.networks.actor_critic import ActorCritic
from jaxrl.networks.layers import MLP, Flatten, activation, dense
from jaxrl.networks.policies import PolicyHead
from jaxrl.networks.recurrent import Core, initial_carry
from jaxrl.networks.torsos import CNN, Convolutions, ImpalaCNN, default_torso
from jaxrl.types import Box, Discrete, EnvSpec, Masked, Mixed, MultiDiscrete

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnums=0)
def init(module, *args):
    """The initial parameters of training."""
    return module.init(KEY, *args)["params"]


def some_params(module, *args):
    """Random parameters, including biases, without compiling the initialisation."""
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(module.init, KEY, *args)["params"]
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.standard_normal(x.shape), x.dtype), shapes)


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(module, params, *args, method=None):
    return module.apply({"params": params}, *args, method=method)


def gaussian(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


# Initialisation -----------------------------------------------------------------------------------


def assert_orthogonal(layer, gain):
    """`W^T W = gain^2 I` (or `W W^T`, whichever is smaller); the bias is zero."""
    kernel = np.asarray(layer["kernel"], np.float64)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    product = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
    np.testing.assert_allclose(product / gain**2, np.eye(len(product)), atol=1e-5)
    assert not np.asarray(layer["bias"]).any()


def test_layers_are_orthogonal_with_their_gains():
    params = init(MLP((64, 32, 48)), gaussian(5))
    assert len(params) == 3
    for layer in params.values():
        assert_orthogonal(layer, np.sqrt(2))
    params = init(CNN(), jnp.zeros((6, 6, 3), jnp.uint8))
    assert len(params) == 3
    for layer in params.values():
        assert_orthogonal(layer, np.sqrt(2))


@pytest.mark.parametrize("shared", [False, True])
def test_initial_policy_is_near_uniform_and_value_of_scale_1(shared):
    network = ActorCritic(lambda: MLP(), Discrete(5), shared)
    obs = gaussian(100, 4)
    params = init(network, obs)
    assert_orthogonal(params["actor_head"]["Dense_0"], 0.01)
    assert_orthogonal(params["critic_head"], 1.0)
    policy, values, _ = apply(network, params, obs)
    np.testing.assert_allclose(policy.entropy(), np.full(100, np.log(5)), rtol=1e-3)
    assert 0.1 < values.std() < 10


def test_gaussian_policy_starts_with_the_given_log_std():
    for initial in (0.0, -0.5):
        head = PolicyHead(Box.of(-1.0, 1.0, (3,)), initial)
        params = init(head, gaussian(8))
        np.testing.assert_array_equal(params["log_std"], np.full(3, initial, np.float32))
        assert_orthogonal(params["Dense_0"], 0.01)
        policy = apply(head, params, gaussian(2, 8))
        np.testing.assert_array_equal(policy.log_std, np.full((2, 3), initial, np.float32))


def test_policies_between_bounds_start_near_the_centre_and_stay_inside():
    box, x = Box.of((-2.0, 0.0), (2.0, 10.0), (2,)), gaussian(500, 8)
    for box_policy in ("squashed", "beta"):
        head = PolicyHead(box, box_policy=box_policy)
        policy = apply(head, init(head, x), x)
        np.testing.assert_allclose(policy.mode(), np.tile([0.0, 5.0], (500, 1)), atol=0.4)
        drawn = np.asarray(policy.sample(KEY))
        low, high = box.bounds()
        assert ((low <= drawn) & (drawn <= high)).all()
        assert (drawn.std(axis=0) > 0.2 * (high - low)).all()  # nearly uniform


def test_the_standard_deviation_can_depend_on_the_state():
    head = PolicyHead(Box.of(-1.0, 1.0, (3,)), -0.5, std_from="output")
    x = gaussian(50, 8)
    params = init(head, x)
    log_std = np.asarray(apply(head, params, x).log_std)
    np.testing.assert_allclose(log_std, -0.5, atol=0.1)
    assert (log_std.std(axis=0) > 1e-4).all()
    assert set(params) == {"Dense_0", "Dense_1"}


@pytest.mark.parametrize(
    ("change", "space", "message"),
    [
        ({"box_policy": "beta"}, Discrete(2), "box_policy is 'beta', but there is no box"),
        ({"initial_log_std": -1.0}, Discrete(2), "initial_log_std is -1.0, but there is no box"),
        (
            {"box_policy": "beta", "initial_log_std": -1.0},
            Box.of(-1.0, 1.0, (1,)),
            "initial_log_std is -1.0, and box_policy is 'beta'",
        ),
        (
            {"box_policy": "squashed"},
            Box.of(-np.inf, 1.0, (1,)),
            "box_policy is 'squashed', whose actions lie between bounds",
        ),
        ({"initial_log_std": jnp.zeros(2)}, Box.of(-1.0, 1.0, (1,)), "initial_log_std is"),
    ],
)
def test_options_of_policies_over_a_box_are_checked(change, space, message):
    spec = EnvSpec(jax.ShapeDtypeStruct((4,), jnp.float32), space)
    with pytest.raises((ValueError, TypeError), match=message):
        PPO(**change).bind(spec)


def test_sizes_of_the_cartpole_networks():
    """Computed by hand, so that speed comparisons use the same network: 64 x 64, 4 in, 2 out."""
    spec = EnvSpec(jax.ShapeDtypeStruct((4,), jnp.float32), Discrete(2))
    hidden = (4 * 64 + 64) + (64 * 64 + 64)
    policy, value = 64 * 2 + 2, 64 * 1 + 1
    for shared, size in ((False, 2 * hidden + policy + value), (True, hidden + policy + value)):
        network = ActorCritic(lambda: default_torso(spec, (64, 64), "tanh"), spec.action, shared)
        assert count(some_params(network, spec.dummy_observation(1))) == size
        assert size in (9155, 4675)


def test_activations():
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(activation("tanh")(x), np.tanh(x), rtol=1e-6)
    np.testing.assert_array_equal(activation("relu")(x), [0, 0, 2])
    np.testing.assert_allclose(activation("elu")(x), [np.expm1(-1), 0, 2], rtol=1e-6)
    np.testing.assert_allclose(activation("silu")(x), x / (1 + np.exp(-x)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"activation is 'tanhh': use one of tanh, relu"):
        activation("tanhh")


@pytest.mark.parametrize("features", [1, 2, 4, 5])
def test_dense_layers_match_the_formula_at_any_width(features):
    """Value, gradient and tangent, with a batch of kernels."""
    keys = jax.random.split(jax.random.key(0), 5)
    x, t = jax.random.normal(keys[0], (3, 7, 6)), jax.random.normal(keys[1], (3, 7, features))
    layer = dense(features, 1.0)
    params = {
        "kernel": jax.random.normal(keys[2], (2, 6, features)),
        "bias": jax.random.normal(keys[3], (2, features)),
    }
    direction = jax.tree.map(lambda p: jnp.cos(7 * p), params)

    def ours(p):
        return jnp.sum(jnp.sin(layer.apply({"params": p}, x)) * t)

    def formula(p):
        product = jnp.einsum("abi,ij->abj", x, p["kernel"]) + p["bias"][None, None]
        return jnp.sum(jnp.sin(product) * t)

    def everything(f):
        def of(p, d):
            return jax.value_and_grad(f)(p), jax.jvp(f, (p,), (d,))

        return jax.jit(jax.vmap(of))(params, direction)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        everything(ours),
        everything(formula),
    )


def test_mlp_matches_the_formula():
    params = some_params(MLP((3, 2), "relu"), gaussian(4))
    x = np.asarray(gaussian(7, 4), np.float64)
    for layer in (params["Dense_0"], params["Dense_1"]):
        x = np.maximum(x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
    np.testing.assert_allclose(apply(MLP((3, 2), "relu"), params, gaussian(7, 4)), x, rtol=1e-5)


# Observations -------------------------------------------------------------------------------------


def test_cnn_scales_bytes_to_fractions():
    image = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 2))
    params = some_params(CNN(), jnp.asarray(image, jnp.uint8))
    of_bytes = apply(CNN(), params, jnp.asarray(image, jnp.uint8))
    of_floats = apply(CNN(), params, jnp.asarray(image / 255, jnp.float32))
    np.testing.assert_allclose(of_bytes, of_floats, rtol=1e-4, atol=1e-4)
    assert of_bytes.std() > 1.0
    flags = apply(CNN(), params, jnp.asarray(image > 99))  # as in MinAtar
    np.testing.assert_array_equal(flags, apply(CNN(), params, jnp.asarray(image > 99, jnp.float32)))


OBSERVATIONS = {
    "vector": jax.ShapeDtypeStruct((3,), jnp.float32),
    "scalar": jax.ShapeDtypeStruct((), jnp.float32),
    "integer": jax.ShapeDtypeStruct((), jnp.int32),
    "integers": jax.ShapeDtypeStruct((4,), jnp.int32),
    "image": jax.ShapeDtypeStruct((3, 3, 2), jnp.uint8),
    "dictionary": {
        "flag": jax.ShapeDtypeStruct((2,), jnp.bool_),
        "image": jax.ShapeDtypeStruct((2, 2), jnp.uint8),
        "level": jax.ShapeDtypeStruct((), jnp.int32),
    },
}


def example(observation, *leading):
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.integers(0, 2, (*leading, *x.shape)), x.dtype), observation
    )


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_torsos_take_any_observation_and_leading_axes(kind):
    """`[T, N, ...]`, flat rows and a single row give the same features, in the same order."""
    observation = OBSERVATIONS[kind]
    torso = default_torso(EnvSpec(observation, Discrete(2)), (16,), "tanh")
    obs = example(observation, 3, 5)
    params = some_params(torso, obs)
    features = apply(torso, params, obs)
    assert features.shape == (3, 5, 16)
    assert features.dtype == jnp.float32
    flat = apply(torso, params, jax.tree.map(lambda x: x.reshape(15, *x.shape[2:]), obs))
    np.testing.assert_allclose(features.reshape(15, 16), flat, rtol=1e-5, atol=1e-6)
    one = apply(torso, params, jax.tree.map(lambda x: x[2, 4], obs))
    np.testing.assert_allclose(features[2, 4], one, rtol=1e-5, atol=1e-6)
    leaves = [np.asarray(x, np.float32).reshape(15, -1) for x in jax.tree.leaves(obs)]
    rows = np.concatenate(leaves, axis=1)  # all numbers, in tree order
    layer = params["torso"]["Dense_0"]
    expected = np.tanh(rows @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]))
    np.testing.assert_allclose(flat, expected, rtol=1e-5, atol=1e-5)


def test_a_cnn_takes_any_leading_axes():
    images = jnp.asarray(np.random.default_rng(2).integers(0, 256, (2, 3, 4, 5, 1)), jnp.uint8)
    params = some_params(CNN(), images)
    features = apply(CNN(), params, images)
    assert features.shape == (2, 3, 128)
    flat = apply(CNN(), params, images.reshape(6, 4, 5, 1))
    np.testing.assert_allclose(features.reshape(6, 128), flat, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        features[1, 2], apply(CNN(), params, images[1, 2]), rtol=1e-5, atol=1e-5
    )


# Memory -------------------------------------------------------------------------------------------

T, N, F, SIZE = 9, 4, 3, 6
CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}


def episode_starts():
    first = np.random.default_rng(3).random((T, N)) < 0.3
    first[4, 0], first[5, 0] = True, True  # an episode of one step
    first[0, 0] = False  # an episode that continues from before
    return jnp.asarray(first)


@pytest.mark.parametrize("name", CELLS)
def test_unrolled_core_matches_single_steps(name):
    """One environment and one step at a time, with explicit resets of the state."""
    core = Core(name, SIZE)
    x, first = gaussian(T, N, F), episode_starts()
    carry = jax.tree.map(lambda z: gaussian(N, SIZE, seed=5), initial_carry(name, SIZE, N))
    params = some_params(core, carry, x, first)
    last, outputs, carries = apply(core, params, carry, x, first)

    (cell_params,) = params.values()
    step = jax.jit(CELLS[name](SIZE).apply)
    for n in range(N):
        state = jax.tree.map(lambda z: z[n], carry)  # noqa: B023
        for t in range(T):
            if first[t, n]:
                state = jax.tree.map(jnp.zeros_like, state)
            state, y = step({"params": cell_params}, state, x[t, n])
            np.testing.assert_allclose(outputs[t, n], y, rtol=1e-5, atol=1e-6)
            assert_close(jax.tree.map(lambda z: z[t, n], carries), state)  # noqa: B023
        assert_close(jax.tree.map(lambda z: z[n], last), state)  # noqa: B023


@pytest.mark.parametrize("name", CELLS)
def test_a_sequence_may_be_cut_anywhere(name):
    core = Core(name, SIZE)
    x, first = gaussian(T, N, F), episode_starts()
    carry = initial_carry(name, SIZE, N)
    params = some_params(core, carry, x, first)

    @jax.jit
    def cut_at_all(params):
        def run(carry, part):
            return core.apply({"params": params}, carry, x[part], first[part])

        out = []
        for cut in range(1, T):
            middle, *early = run(carry, slice(None, cut))
            end, *late = run(middle, slice(cut, None))
            out.append((end, *jax.tree.map(lambda a, b: jnp.concatenate([a, b]), early, late)))
        return run(carry, slice(None)), out

    whole, cut = cut_at_all(params)
    for joined in cut:
        assert_close(joined, whole)


# Policy and value ---------------------------------------------------------------------------------


class Torso(nn.Module):
    """A user-defined torso, which maps observations to features."""

    @nn.compact
    def __call__(self, obs):
        return nn.relu(dense(7, 1.0, name="mine")(obs["a"] * obs["b"][..., None]))


@pytest.mark.parametrize("core", ["none", "gru", "lstm"])
@pytest.mark.parametrize("shared", [False, True])
def test_separate_policy_and_value_match_the_joint_call(shared, core):
    """With a user-defined torso; the carry after each step equals that of a run stopped there."""
    network = ActorCritic(Torso, Discrete(3), shared, core, SIZE)
    obs, first = {"a": gaussian(T, N, F), "b": gaussian(T, N, seed=1)}, episode_starts()
    leaves, treedef = jax.tree.flatten(network.initial_carry(N))
    carry = treedef.unflatten([gaussian(*x.shape, seed=9 + i) for i, x in enumerate(leaves)])
    params = some_params(network, obs, carry, first)
    torsos = {name: p for name, p in params.items() if name.endswith("torso")}
    assert set(torsos) == ({"actor_torso"} if shared else {"actor_torso", "critic_torso"})
    assert all(count(p["mine"]) == F * 7 + 7 for p in torsos.values())

    @jax.jit
    def run(params, *args):
        methods = (None, "policy", "value")
        return [network.apply({"params": params}, *args, method=name) for name in methods]

    (policy, values, carries), *apart = run(params, obs, carry, first)
    (policy_alone, actor_carries), (values_alone, critic_carries) = apart
    assert values.shape == (T, N)
    assert policy.logits.shape == (T, N, 3)
    assert_close((policy, values), (policy_alone, values_alone))
    if core == "none":
        assert carries == actor_carries == critic_carries == ()
        return
    assert_close(carries, actor_carries if shared else (actor_carries, critic_carries))
    if shared:
        assert_close(actor_carries, critic_carries)
    assert jax.tree.structure(carries) == jax.tree.structure(carry)
    if not shared:  # actor and critic have separate memories
        forgot = jax.tree.map(jnp.zeros_like, carry[1])
        (other_policy, other_values, _), *_ = run(params, obs, (carry[0], forgot), first)
        assert_close(policy, other_policy)
        assert not np.allclose(values[0], other_values[0])
    start, first = jax.tree.map(lambda x: x[:3], (obs, first))
    (_, _, stopped), *_ = run(params, start, carry, first)
    assert_close(jax.tree.map(lambda x: x[-1], stopped), jax.tree.map(lambda x: x[2], carries))


def test_value_gradient_stays_in_its_torso():
    """It does not reach the parameters of the policy, unless the torso is shared."""
    obs = gaussian(8, 4)
    for shared in (False, True):
        network = ActorCritic(lambda: MLP((5,)), Discrete(3), shared)
        params = some_params(network, obs)
        gradient = jax.grad(lambda p: apply(network, p, obs, method="value")[0].sum())(params)  # noqa: B023
        moved = {name for name, g in gradient.items() if any(x.any() for x in jax.tree.leaves(g))}
        assert moved == {"critic_head", "actor_torso" if shared else "critic_torso"}


MASKED = [
    (Discrete(4), jnp.array([True, False, True, False])),
    (MultiDiscrete((2, 3)), jnp.array([True, False, False, True, True])),
    (
        Mixed((Discrete(2), Box.of(-1.0, 1.0, (1,)), MultiDiscrete((2, 2)))),
        (jnp.array([False, True]), None, jnp.array([True, False, False, True])),
    ),
]


@pytest.mark.parametrize(("space", "mask"), MASKED, ids=[repr(s) for s, _ in MASKED])
def test_masks_affect_only_the_policy(space, mask):
    """Masked actions have the largest logits but are never drawn."""
    network = ActorCritic(lambda: MLP((5,)), space)
    obs = gaussian(64, 3)
    rows = jax.tree.map(lambda m: jnp.broadcast_to(m, (64, *m.shape)), mask)
    masked = Masked(obs, rows)
    params = some_params(network, masked)
    assert jax.tree.structure(params) == jax.tree.structure(some_params(network, obs))

    heads = params["actor_head"]
    parts = (
        [heads] if not isinstance(space, Mixed) else [heads[f"PolicyHead_{i}"] for i in range(3)]
    )
    masks = [mask] if not isinstance(space, Mixed) else mask
    for part, m in zip(parts, masks, strict=True):
        if m is not None:
            part["Dense_0"]["bias"] = jnp.where(m, 0.0, 50.0)

    def allowed(distribution, m, action):
        if isinstance(distribution, Categorical):
            return m[action].all()
        if isinstance(distribution, MultiCategorical):
            offsets = np.cumsum((0, *distribution.nums[:-1]))
            return all(m[offset + action[:, i]].all() for i, offset in enumerate(offsets))
        if isinstance(distribution, Product):
            triples = zip(distribution.components, m, action, strict=True)
            return all(allowed(*triple) for triple in triples)
        return isinstance(distribution, DiagonalGaussian)

    @jax.jit
    def act(params, obs):
        policy, values, _ = network.apply({"params": params}, obs)
        return policy, policy.sample(KEY), policy.mode(), values

    policy, sample, mode, values = act(params, masked)
    assert allowed(policy, mask, sample)
    assert allowed(policy, mask, mode)
    free, free_sample, _, free_values = act(params, obs)
    assert not allowed(free, mask, free_sample)  # so the mask made the difference
    np.testing.assert_array_equal(values, free_values)


def test_heads_of_every_space():
    """Their parameters, and the shapes of actions and log-probabilities."""
    space = Mixed((Discrete(2), Box.of(-1.0, 1.0, (2, 3)), MultiDiscrete((2, 3)), Box.of(0, 1, ())))
    head, x = PolicyHead(space), gaussian(4, 5, 8)
    params = some_params(head, x)
    shapes = jax.tree.map(lambda p: p.shape, params)
    assert shapes == {
        "PolicyHead_0": {"Dense_0": {"kernel": (8, 2), "bias": (2,)}},
        "PolicyHead_1": {"Dense_0": {"kernel": (8, 6), "bias": (6,)}, "log_std": (2, 3)},
        "PolicyHead_2": {"Dense_0": {"kernel": (8, 5), "bias": (5,)}},
        "PolicyHead_3": {"Dense_0": {"kernel": (8, 1), "bias": (1,)}, "log_std": ()},
    }

    @jax.jit
    def act(params, x):
        policy = head.apply({"params": params}, x)
        pairs = [
            (action, policy.log_prob(action)) for action in (policy.sample(KEY), policy.mode())
        ]
        return pairs, policy.entropy()

    pairs, entropy = jax.eval_shape(act, params, x)
    assert entropy.shape == (4, 5)
    for action, log_prob in pairs:
        assert [a.shape for a in action] == [(4, 5), (4, 5, 2, 3), (4, 5, 2), (4, 5)]
        assert log_prob.shape == (4, 5)
    with pytest.raises(TypeError, match="3 is not an action space"):
        PolicyHead(3).init(KEY, x)


def test_flatten_rejects_unexpected_leaves():
    with pytest.raises(ValueError, match="zip"):
        Flatten(((2,),), MLP((3,))).init(KEY, {"a": gaussian(2), "b": gaussian(2)})


def test_kernels_can_have_the_variance_of_lecun():
    """Also in the last layer, whose gain is small otherwise; not in recurrent and noisy layers."""
    spec = EnvSpec(jax.ShapeDtypeStruct((50,), jnp.float32), Discrete(40))
    sizes = {"hidden_sizes": (200, 100), "core": "gru", "core_size": 30}
    own, other = (
        jax.jit(PPO(**sizes, initialization=kind).bind(spec).init_params)(KEY)["params"]
        for kind in ("orthogonal", "lecun")
    )
    for name in ("actor_torso", "critic_torso", "actor_head"):
        for kernel in (x for x in jax.tree.leaves(other[name]) if x.ndim == 2):
            np.testing.assert_allclose(kernel.std() * np.sqrt(len(kernel)), 1.0, rtol=0.1)
    assert np.abs(np.asarray(own["actor_head"]["Dense_0"]["kernel"])).max() < 0.01
    for a, b in zip(*(jax.tree.leaves(p["actor_core"]) for p in (own, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    box = EnvSpec(spec.observation, Box.of(-1.0, 1.0, (20,)))
    for agent, of in (
        (DDPG(hidden_sizes=(64,)), box),
        (SAC(hidden_sizes=(64,)), box),
        (DQN(noisy=True, hidden_sizes=(64,)), spec),
    ):
        state = jax.jit(agent.replace(initialization="lecun").bind(of).init)(KEY)
        first = jax.jit(agent.bind(of).init)(KEY)
        changed = jax.tree.map(lambda x, y: bool((x != y).any()), state, first)
        assert any(jax.tree.leaves(changed)) != isinstance(agent, DQN)


def test_parameters_can_be_uniform_as_in_pytorch():
    """Kernels and biases within 1 / sqrt(inputs), and none equal to another of the same shape."""
    spec = EnvSpec(jax.ShapeDtypeStruct((50,), jnp.float32), Discrete(40))
    agent = TRPO(hidden_sizes=(200, 200), initialization="pytorch").bind(spec)
    params = jax.jit(agent.init_params)(KEY)
    layers = {}
    for path, x in jax.tree_util.tree_flatten_with_path(params)[0]:
        layers[jax.tree_util.keystr(path)] = np.asarray(x)
    seen = set()
    for name, x in layers.items():
        inputs = len(layers[name.replace("bias", "kernel")])
        assert np.abs(x).max() * np.sqrt(inputs) <= 1.0 + 1e-6
        if x.size >= 100:
            np.testing.assert_allclose(np.abs(x).max() * np.sqrt(inputs), 1.0, atol=0.1)
            np.testing.assert_allclose(x.std() * np.sqrt(3 * inputs), 1.0, atol=0.2)
        seen.add(x.tobytes())
    assert len(seen) == len(layers) == 12


def test_actor_and_critic_start_from_different_kernels():
    spec = EnvSpec(jax.ShapeDtypeStruct((50,), jnp.float32), Discrete(40))
    for kind in ("orthogonal", "lecun", "pytorch"):
        agent = TRPO(hidden_sizes=(20,), initialization=kind).bind(spec)
        params = jax.jit(agent.init_params)(KEY)
        actor, critic = (
            [x for x in jax.tree.leaves(p) if x.shape == (50, 20)]
            for p in (params.actor, params.critic)
        )
        assert len(actor) == len(critic) == 1
        assert (actor[0] != critic[0]).any()


# Images ---------------------------------------------------------------------------------------

ATARI = jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8)


def sizes(params):
    return {
        jax.tree_util.keystr(k): x.shape for k, x in jax.tree_util.tree_leaves_with_path(params)
    }


def test_the_network_of_images_is_that_of_nature():
    """Mnih et al. (2015): 8 x 8 x 32 by 4, 4 x 4 x 64 by 2, 3 x 3 x 64, and 3136 inputs of 512."""
    torso = default_torso(EnvSpec(ATARI, Discrete(6)), (512,), "relu")
    shapes = jax.eval_shape(lambda: torso.init(KEY, jnp.zeros(ATARI.shape, jnp.uint8)))
    kernels = [x for name, x in sizes(shapes).items() if "kernel" in name]
    assert kernels == [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (3136, 512)]


def test_the_residual_network_is_that_of_impala():
    """Espeholt et al. (2018), figure 3: 15 convolutions, 11 x 11 x 32 = 3,872 inputs of 256."""
    shapes = jax.eval_shape(lambda: ImpalaCNN().init(KEY, jnp.zeros(ATARI.shape, jnp.uint8)))
    kernels = [x for name, x in sizes(shapes).items() if "kernel" in name]
    assert kernels.count((3, 3, 32, 32)) == 4 + 5
    assert len(kernels) == 16
    assert (3872, 256) in kernels


@pytest.mark.parametrize("torso", [Convolutions(), ImpalaCNN((4,), 8)], ids=["nature", "impala"])
def test_images_of_bytes_are_scaled(torso):
    image = np.random.default_rng(0).integers(0, 255, (2, 3, 40, 36, 1))
    params = torso.init(KEY, jnp.asarray(image, jnp.uint8))
    of_bytes = torso.apply(params, jnp.asarray(image, jnp.uint8))
    of_floats = torso.apply(params, jnp.asarray(image / 255, jnp.float32))
    assert of_bytes.shape[:2] == (2, 3)
    np.testing.assert_allclose(of_bytes, of_floats, rtol=1e-4, atol=1e-5)


def test_small_images_go_through_dense_layers():
    small = EnvSpec(jax.ShapeDtypeStruct((10, 10, 4), jnp.uint8), Discrete(2))
    assert isinstance(default_torso(small, (8,), "relu"), Flatten)
