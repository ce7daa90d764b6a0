"""Tables and commands as lines of text."""

import shlex
from collections.abc import Sequence
from pathlib import Path


def aligned(rows: Sequence[Sequence[str]], *, left: int = 0) -> str:
    """Rows of cells as lines: the first `left` columns begin together, the others end together."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def resume_command(path: Path) -> str:
    """The command that goes on with the run in `path`, to paste into a shell."""
    return f"jaxrl resume {shlex.quote(str(path))}"
