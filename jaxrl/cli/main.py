"""Entry point of the command `jaxrl`. It imports jax as late as possible."""

import sys
from collections.abc import Sequence

from jaxrl.cli import distributed, terminal
from jaxrl.cli.command_line import joined, parse_command_line
from jaxrl.cli.parsing import fail
from jaxrl.errors import JaxrlError
from jaxrl.runs.disk import WriteError, is_disk_error


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with `argv`, by default the arguments of the process."""
    argv = joined(sys.argv[1:] if argv is None else argv)
    terminal.ensure()
    try:
        options = parse_command_line(argv)
        if distributed.runs_in_child(options):
            raise SystemExit(distributed.supervise(argv))
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt as end:
        terminal.say(f"jaxrl: interrupted{f': {end}' if str(end) else ''}")
        raise SystemExit(128 + getattr(end, "signal", 2)) from None
    except JaxrlError as error:
        fail(str(error), status=1 if isinstance(error, WriteError) else 2)
    except BrokenPipeError:  # the reader has quit, as in `jaxrl list | head`
        terminal.silence(sys.stdout)
    except OSError as error:
        if not is_disk_error(error):
            raise
        terminal.silence(sys.stdout)  # in case its disk is full
        fail(f"{error.filename or 'standard output'}: {error.strerror}", status=1)
    except Exception:
        terminal.say(
            "jaxrl: unexpected error, in jaxrl or in your own code. If it is a bug in jaxrl, "
            "please report it with the output of `jaxrl doctor`"
        )
        raise
