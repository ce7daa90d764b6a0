"""`jaxrl list`: prints the algorithms and the environments."""

import argparse
from typing import Any

from jaxrl.registry import algorithms


def add(verbs: Any) -> None:
    """Adds the command to the parser's commands."""
    parser = verbs.add_parser(
        "list", help="Show the algorithms and the environments", allow_abbrev=False
    )
    parser.set_defaults(run=list_all)


def list_all(options: argparse.Namespace) -> None:
    """Prints the algorithms and the environments."""
    from jaxrl_envs.registry import list_ids

    print("algorithms")
    width = max(map(len, algorithms()))
    for algorithm in algorithms().values():
        print(f"  {algorithm.name:<{width}} {algorithm.summary}")
    print("\nenvironments")
    for env_id in list_ids():
        print(f"  {env_id}")
