"""The secret of this installation from which the marks of fences are made: nobody who writes a text can know one.

It is a file beside the journal that all processes of a user share, made by whichever needs it first, so that one text
gets one mark on every run. Where no file can be written, each process has a secret of its own: marks then differ from
run to run, and nothing else, for they are no part of the journal's keys.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
from pathlib import Path

from fusiontools.llm.journal import default_path

#: The secret itself, for machines that are to make the same marks; it stands in no record and no log.
VARIABLE = "FUSION_FENCE_SECRET"
_SECRET_BYTES = 32


def fence_key() -> bytes:
    """Return the secret: 32 bytes."""
    if given := os.environ.get(VARIABLE):
        return hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
    return _own_secret(os.environ.get("XDG_STATE_HOME"), os.environ.get("HOME"))


@functools.lru_cache(maxsize=8)
def _own_secret(*_: str | None) -> bytes:
    """Return the secret of this user, whose place the variables say: to put it together takes longer than a mark."""
    return _secret_in(default_path().with_name("fence.key"))


def _secret_in(path: Path) -> bytes:
    """Return the secret of a file, which is made where it is not there; one of this process where that cannot be."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            if len(found := path.read_bytes()) == _SECRET_BYTES:
                return found
        with contextlib.suppress(OSError):
            _make(path)
    return secrets.token_bytes(_SECRET_BYTES)


def _make(path: Path) -> None:
    """Put a new secret there whole, unless another process was first: nobody ever sees half of one.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    ours = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(ours, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_SECRET_BYTES))
    try:
        os.link(ours, path)
    finally:
        ours.unlink()
