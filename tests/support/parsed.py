"""The package as it is written, parsed once by a process of tests."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import fusiontools

PACKAGE = Path(fusiontools.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def nodes(module: str) -> list[ast.AST]:
    """Return every node of a module, however deep."""
    return list(ast.walk(tree(module)))
