"""Probability distributions over actions: pure functions of arrays, batched over any leading axes.

`networks/policies.py` chooses a distribution for an action space.

Every distribution is a frozen dataclass and a pytree, so it can cross `jax.jit`, `jax.vmap` and
`jax.lax.scan`. In shapes, `[...]` stands for the batch axes. Parameters narrower than 32 bits are
cast to float32. Parameters must be finite: to forbid an action, use `mask`, never a logit of -inf.

XLA may round the same sum differently in two programs. Sums here have a fixed order, so on CPU a
Categorical's `log_prob` has equal bits in a rollout's scan, in an update's gradient and on its own
(2 to 18 actions, jax 0.10.2 and 0.11.2): the first importance ratio is exactly 1. For a
DiagonalGaussian it is 1 up to rounding, about 1e-6.
"""

from jaxrl.distributions.base import Distribution as Distribution
from jaxrl.distributions.bounded import Beta as Beta
from jaxrl.distributions.bounded import Scaled as Scaled
from jaxrl.distributions.categorical import Categorical as Categorical
from jaxrl.distributions.categorical import MultiCategorical as MultiCategorical
from jaxrl.distributions.gaussian import DiagonalGaussian as DiagonalGaussian
from jaxrl.distributions.gaussian import FeatureGaussian as FeatureGaussian
from jaxrl.distributions.gaussian import TanhGaussian as TanhGaussian
from jaxrl.distributions.mixture import GaussianMixture as GaussianMixture
from jaxrl.distributions.product import Product as Product
