"""`python -m jaxrl`, equivalent to the command `jaxrl`."""

from jaxrl.cli.main import main

main()
