"""What a source file imports, whichever way it is written."""

import ast


def imports(source: str) -> set[str]:
    """The dotted names: `from a import b` is of `a` and of `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names
