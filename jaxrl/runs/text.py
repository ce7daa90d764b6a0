"""Text tables and shell commands."""

import shlex
from collections.abc import Sequence
from pathlib import Path


def aligned(rows: Sequence[Sequence[str]], *, left: int = 0) -> str:
    """Formats rows of cells as a table: the first `left` columns left-aligned, the rest right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def resume_command(path: Path) -> str:
    """The shell command that resumes the run in `path`."""
    return f"jaxrl resume {shlex.quote(str(path))}"
