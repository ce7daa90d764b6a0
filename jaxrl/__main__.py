"""`python -m jaxrl`: the command `jaxrl`, where its script is not on the path."""

from jaxrl.cli.main import main

main()
