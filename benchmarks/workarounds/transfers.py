"""Making and evaluating under `jax.transfer_guard("disallow")`: allowed inside, and guarded.

`jaxrl/xla/transfers.py`.
"""

import jax

from benchmarks.workarounds.harness import compare_faults
from jaxrl.xla import transfers


def program(is_applied: bool) -> str | None:
    if not is_applied:  # before the modules that use it are imported
        transfers.transfers_allowed = lambda function: function
    import jaxrl_envs

    try:
        with jax.transfer_guard("disallow"):
            jaxrl_envs.make("gymnax/Pendulum-v1", g=5.0)
    except Exception as error:  # jax raises several kinds
        if "Disallowed" not in str(error):
            raise
        return "jax disallows the transfer of a parameter"
    return None


if __name__ == "__main__":
    compare_faults("an environment with a parameter", program)
