"""Probability distributions over actions: pure functions of arrays, batched over any leading axes.

Every distribution is a frozen dataclass and a pytree, so it can cross `jax.jit`, `jax.vmap` and
`jax.lax.scan`. Shapes are written `[...]` for the batch and named for what follows it. Parameters
of less than 32 bits are computed with in float32. Parameters must be finite: to forbid an action
use `mask`, never a logit of -inf.

XLA may round the same sum differently in two programs. The sums here keep their order, so that on
the CPU a Categorical's `log_prob` had equal bits in a rollout's scan, in an update's gradient and
by itself (2 to 18 actions, jax 0.10.2 and 0.11.2): the first importance ratio is exactly 1. That
of a DiagonalGaussian is 1 to rounding only, about 1e-6.
"""

from jaxrl.distributions.base import Distribution as Distribution
from jaxrl.distributions.categorical import Categorical as Categorical
from jaxrl.distributions.categorical import MultiCategorical as MultiCategorical
from jaxrl.distributions.gaussian import DiagonalGaussian as DiagonalGaussian
from jaxrl.distributions.gaussian import TanhGaussian as TanhGaussian
from jaxrl.distributions.product import Product as Product
