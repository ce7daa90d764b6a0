"""Runs the command `jaxrl` in this process."""

import contextlib
import io

from jaxrl.cli.main import main


def run_in_process(*argv):
    """Runs the command; returns its exit status, and the lines on stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(word) for word in argv])
            status = 0
        except SystemExit as end:
            status = end.code
    return status, out.getvalue().splitlines(), err.getvalue().splitlines()
