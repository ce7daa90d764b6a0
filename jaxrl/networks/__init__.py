"""Networks in flax.linen: torsos, recurrent cores and heads.

Built-in torsos map observations `[..., *obs]` to features `[..., F]` for any leading axes; your own
modules always see one batch axis, `[B, *obs]`. Which agents support batch statistics and dropout is
documented in `jaxrl.networks.own_modules`.
"""

from jaxrl.networks.actor_critic import ActorCritic as ActorCritic
from jaxrl.networks.critics import Critics as Critics
from jaxrl.networks.layers import MLP as MLP
from jaxrl.networks.layers import Conv as Conv
from jaxrl.networks.layers import Flatten as Flatten
from jaxrl.networks.policies import PolicyHead as PolicyHead
from jaxrl.networks.policies import Scorer as Scorer
from jaxrl.networks.policies import SoftmaxLinear as SoftmaxLinear
from jaxrl.networks.q_networks import QNetwork as QNetwork
from jaxrl.networks.recurrent import Core as Core
from jaxrl.networks.torsos import CNN as CNN
from jaxrl.networks.torsos import Convolutions as Convolutions
from jaxrl.networks.torsos import ImpalaCNN as ImpalaCNN
from jaxrl.networks.torsos import default_torso as default_torso
