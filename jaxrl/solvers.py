"""Second-order methods on pytrees: conjugate gradient, Gauss-Newton products, a line search.

All are pure, work under `jit` and `vmap`, and never apply a non-finite step; under `vmap` each
member stops on its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree

from jaxrl.devices.shards import as_different, sum_of_tree
from jaxrl.errors import InvalidValue
from jaxrl.losses import mean
from jaxrl.types import Array, PyTree, Scalar

ROUNDING = 1e-6
"""Curvatures below this fraction of the largest one are rounding errors in float32."""


class Solution(struct.PyTreeNode):
    """Result of conjugate gradient.

    Attributes:
      x: approximately A^-1 b, structured like b.
      residual: b - A x, structured like b.
      relative_residual: |b - A x| / |b|, `float32[]`; 0 if b is 0.
      num_steps: `int32[]`, steps taken.
    """

    x: PyTree
    residual: PyTree
    relative_residual: Array
    num_steps: Array


def conjugate_gradient(
    matvec: Callable[[PyTree], PyTree],
    b: PyTree,
    num_iterations: int,
    *,
    tolerance: Scalar = 0.0,
    preconditioner: Callable[[PyTree], PyTree] | None = None,
) -> Solution:
    """Solves A x = b for a symmetric, positive definite A, from x = 0.

    Each step takes one product with A. The solution is frozen once the residual is small enough,
    the curvature p^T A p / p^T p is not positive relative to the largest one seen (A is singular or
    indefinite along p, up to rounding), or a value is not finite. A non-finite `b` gives x = 0 with
    a relative residual of 1.

    Args:
      matvec: v -> A v.
      b: a pytree of floats.
      num_iterations: length of the scan, at least 1; in exact arithmetic, the size of b suffices.
      tolerance: stop once |b - A x| <= tolerance |b|.
      preconditioner: v -> M^-1 v with a symmetric, positive definite M close to A.

    Raises:
      ValueError: `num_iterations` is below 1.

    Source: Hestenes and Stiefel, 1952; with a preconditioner Golub and Van Loan, 2013, alg. 11.5.1.
    """
    if num_iterations < 1:
        raise InvalidValue(f"num_iterations is {num_iterations}: it must be at least 1")
    flat_b, unravel = ravel_pytree(b)
    norm_b = _norm(flat_b)

    def on_vectors(f):
        return lambda v: ravel_pytree(f(unravel(v)))[0]

    product = on_vectors(matvec)
    condition = on_vectors(preconditioner) if preconditioner else lambda v: v

    def step(loop, _):
        x, r, p, rz, largest, active, num_steps = loop
        product_p = product(p)
        curvature, squared = _dot(p, product_p), _dot(p, p)
        largest = jnp.maximum(largest, curvature / squared)
        alpha = rz / curvature
        new_x, new_r = x + alpha * p, r - alpha * product_p
        z = condition(new_r)
        new_rz = _dot(new_r, z)
        curved = (curvature > 0) & (curvature > ROUNDING * largest * squared)
        taken = active & curved & jnp.all(jnp.isfinite(new_x)) & jnp.isfinite(new_rz)
        x = jnp.where(taken, new_x, x)
        r = jnp.where(taken, new_r, r)
        p = jnp.where(taken, z + (new_rz / rz) * p, p)
        rz = jnp.where(taken, new_rz, rz)
        active = taken & (_norm(r) > tolerance * norm_b)
        return (x, r, p, rz, largest, active, num_steps + taken), None

    z = condition(flat_b)
    rz = _dot(flat_b, z)
    active = jnp.isfinite(rz) & (norm_b > 0)
    zero = jnp.zeros((), flat_b.dtype)
    start = (jnp.zeros_like(flat_b), flat_b, z, rz, zero, active, jnp.zeros((), jnp.int32))
    (x, r, *_, num_steps), _ = jax.lax.scan(step, start, length=num_iterations)
    relative = jnp.where(norm_b == 0, 0.0, _norm(r) / jnp.where(norm_b == 0, 1.0, norm_b))
    relative = jnp.where(jnp.isfinite(norm_b), relative, 1.0)
    return Solution(unravel(x), unravel(r), relative, num_steps)


def gauss_newton_product(
    f: Callable[[PyTree], PyTree],
    params: PyTree,
    metric: Callable[[PyTree], PyTree],
    batch_ndim: int = 1,
) -> Callable[[PyTree], PyTree]:
    """Returns v -> mean over rows of J^T M J v, where J is the Jacobian of `f` at `params`.

    `f` is linearised once; each product then costs one forward pass (J v) and one backward pass.
    The product is positive semi-definite if every M is; the Hessian of a KL divergence is not, away
    from its minimum.

    Args:
      f: params -> outputs, leaves `[*batch, ...]`.
      params: the point of linearisation.
      metric: multiplies output tangents by M, row by row.
      batch_ndim: number of leading batch axes of the outputs.

    Source: Schraudolph, "Fast curvature matrix-vector products", 2002; for the Fisher matrix of a
    policy Martens, "New insights and perspectives on the natural gradient method", 2020, section 9.
    """
    _, push = jax.linearize(f, as_different(params))  # so that shards exchange one vector

    def product(v):
        v = as_different(v)
        outputs = metric(push(v))

        def mean_inner(v):
            return mean(_row_inner(push(v), outputs, batch_ndim))

        (pulled,) = jax.linear_transpose(mean_inner, v)(jnp.ones((), jnp.float32))
        return sum_of_tree(pulled)

    return product


def directional_derivative(
    f: Callable[[PyTree], Array], params: PyTree, direction: PyTree
) -> tuple[Array, Array]:
    """f(params), and its derivative along `direction`, for rows that differ between devices."""
    # Where devices share the environments, a tangent may differ only where its primal does.
    return jax.jvp(f, (as_different(params),), (as_different(direction),))


def _row_inner(x: PyTree, y: PyTree, batch_ndim: int) -> Array:
    """Row-wise inner products of x and y, `[*batch]`."""

    def one(a, b):
        return jnp.sum(a * b, axis=tuple(range(batch_ndim, a.ndim)))

    return sum(jax.tree.leaves(jax.tree.map(one, x, y)), start=jnp.zeros((), jnp.float32))


class LineSearch(struct.PyTreeNode):
    """Result of a line search.

    Attributes:
      x: the accepted point, or bit for bit the starting point.
      accepted: `bool[]`.
      num_tries: `int32[]`, points tried.
      scale: `float32[]`, the accepted multiple of the step; 0 if none.
      report: the report of `judge` on the accepted point; zeros if none.
    """

    x: PyTree
    accepted: Array
    num_tries: Array
    scale: Array
    report: PyTree


def backtracking_line_search(
    judge: Callable[[PyTree], tuple[Array, PyTree]],
    x: PyTree,
    step: PyTree,
    *,
    shrink: Scalar = 0.8,
    max_tries: int = 10,
) -> LineSearch:
    """Tries x + step, x + shrink step, x + shrink^2 step, ... and takes the first accepted point.

    Args:
      judge: point -> (`bool[]`, whether to accept it; a report, a pytree of arrays). NaN compares
        false, so `better & (kl <= radius)` rejects NaN.
      x: the starting point.
      step: the full step, structured like x.
      shrink: factor in (0, 1).
      max_tries: number of points to try, at least 1.
    """
    if max_tries < 1:
        raise InvalidValue(f"max_tries is {max_tries}: it must be at least 1")
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(judge, x)[1])

    def goes_on(search):
        return ~search.accepted & (search.num_tries < max_tries)

    def attempt(search):
        scale = jnp.asarray(shrink, jnp.float32) ** search.num_tries
        point = jax.tree.map(lambda a, d: a + scale * d, x, step)
        accepted, report = judge(point)

        def chosen(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)

        return LineSearch(
            x=chosen(point, x),
            accepted=accepted,
            num_tries=search.num_tries + 1,
            scale=jnp.where(accepted, scale, 0.0),
            report=chosen(report, nothing),
        )

    none = jnp.zeros((), jnp.int32)
    start = LineSearch(x, jnp.zeros((), bool), none, jnp.zeros((), jnp.float32), nothing)
    return jax.lax.while_loop(goes_on, attempt, start)


def _dot(x: Array, y: Array) -> Array:
    return jnp.dot(x, y, precision=jax.lax.Precision.HIGHEST)


def _norm(x: Array) -> Array:
    return jnp.sqrt(_dot(x, x))
