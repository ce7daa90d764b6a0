"""Conservative Q-learning (Kumar et al., "Conservative Q-learning for offline RL", 2020)."""

import jax

from jaxrl.agents.fitted_q import FittedQ
from jaxrl.hyper import hyper
from jaxrl.networks.q_networks import available_only, of_actions
from jaxrl.replay.buffer import Replayed
from jaxrl.types import Array, Scalar


class CQL(FittedQ):
    """Fitted Q iteration that keeps down the values of actions which the data do not have."""

    batch_size: int | None = 256
    conservatism: Scalar = hyper(
        1.0,
        low=0.0,
        doc="Weight of log sum exp Q(s, .) - Q(s, a), alpha; 0 for fitted Q iteration.",
    )

    def losses_of(
        self, outputs: Array, levels: Array, following: Array, rows: Replayed
    ) -> tuple[Array, Array]:
        """Losses of equation 4 with the entropy as regulariser, CQL(H)."""
        losses, errors = super().losses_of(outputs, levels, following, rows)
        q = available_only(self.means(outputs), rows.obs)
        taken = of_actions(q[..., None], rows.action)[:, 0]
        excess = jax.nn.logsumexp(q, axis=-1) - taken
        return losses + self.conservatism * excess, errors
