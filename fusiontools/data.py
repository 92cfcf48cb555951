"""Where the files that ship with the package are: schemas, recipes and prompt templates."""

from __future__ import annotations

from pathlib import Path


def data_dir(kind: str) -> Path:
    """Return the folder of `schemas` or `configs`: inside an installed package, else beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / "data" / kind
    return inside if inside.is_dir() else here.parent / kind
