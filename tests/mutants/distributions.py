"""Defects of distributions."""

from mutants.mutant import Mutant
from mutants.tests import FISHER

MUTANTS = (
    Mutant(
        "every-gaussian-weighs-the-same",
        "The likelihood of a mixture leaves out the probabilities of its Gaussians.",
        "jaxrl/distributions/mixture.py",
        "jax.nn.log_softmax(self.logits) + each",
        "jax.nn.log_softmax(0.0 * self.logits) + each",
        ("tests/test_distributions.py::test_mixtures_match_scipy",),
    ),
    Mutant(
        "masks-missing-from-the-log-probability",
        "Unavailable actions are never sampled but have a probability in the loss.",
        "jaxrl/distributions/categorical.py",
        "blocks = minor_axis.split(self._masked_logits())",
        "blocks = minor_axis.split(at_least_float32(self.logits))",
        ("tests/test_distributions.py::test_masking_equals_removing_the_actions[5]",),
    ),
    Mutant(
        "categorical-fisher-without-its-mean",
        "The Fisher matrix of a categorical is diag(p), without - p p^T.",
        "jaxrl/distributions/categorical.py",
        "return p * (tangent - jnp.sum(p * tangent, axis=-1, keepdims=True))",
        "return p * tangent",
        (f"{FISHER}[wide-True]",),
    ),
    Mutant(
        "fisher-of-unavailable-actions",
        "The Fisher matrix includes masked actions.",
        "jaxrl/distributions/categorical.py",
        "p = jax.nn.softmax(self._masked_logits(), axis=-1)",
        "p = jax.nn.softmax(self.parameters, axis=-1)",
        (f"{FISHER}[wide-True]",),
    ),
    Mutant(
        "an-action-that-is-none-is-certain",
        "The log-probability of an out-of-range action is 0, an empty sum, instead of -inf.",
        "jaxrl/distributions/categorical.py",
        "return jnp.where(known, log_prob, -jnp.inf)",
        "return jnp.where(known, log_prob, log_prob)",
        ("tests/test_distributions.py::test_out_of_range_actions_have_probability_zero[8]",),
    ),
    Mutant(
        "gaussian-fisher-without-its-scale",
        "The Fisher matrix of a Gaussian's mean is 1 instead of 1 / std^2.",
        "jaxrl/distributions/gaussian.py",
        "return tangent[0] * jnp.exp(-2 * log_std), 2 * tangent[1]",
        "return tangent[0], 2 * tangent[1]",
        (f"{FISHER}[matrix-False]",),
    ),
    Mutant(
        "log-std-missing-from-the-vector",
        "The parameters of the Fisher matrix leave out `log_std` (TRPO ports).",
        "jaxrl/distributions/gaussian.py",
        '"""Mean and log_std, both float [..., *event]."""\n        return self._parameters()',
        '"""Mean and log_std, both float [..., *event]."""\n'
        "        return self._parameters()[0], jax.lax.stop_gradient(self._parameters()[1])",
        (f"{FISHER}[matrix-False]",),
    ),
    Mutant(
        "likelihood-by-inversion",
        "The likelihood of a tanh policy inverts the action, which is NaN or infinite at "
        "saturation (SAC ports).",
        "jaxrl/distributions/gaussian.py",
        "gaussian._log_prob_of(noise) - self._log_slope(u)",
        "gaussian._log_prob_of(noise) - self._log_slope(jnp.arctanh(jnp.tanh(u)))",
        ("tests/agents/test_continuous.py::test_tanh_gaussian_is_a_density",),
    ),
    Mutant(
        "likelihood-without-its-slope",
        "The log-determinant of the change of variables is missing.",
        "jaxrl/distributions/gaussian.py",
        "return sum_event(slope, self.event_ndim)",
        "return 0.0 * sum_event(slope, self.event_ndim)",
        ("tests/agents/test_continuous.py::test_tanh_gaussian_is_a_density",),
    ),
)
