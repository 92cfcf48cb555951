"""A keyring that is a file of JSON; `PYTHON_KEYRING_BACKEND=file_keyring.FileKeyring` puts it in the system's place."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Keeps passwords in `$FILE_KEYRING`; a folder there is a keyring that nobody unlocks."""

    priority = 5

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write({**self._read(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        held = self._read()
        if held.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError("there is none")
        self._write(held)

    def _path(self) -> Path:
        path = Path(os.environ["FILE_KEYRING"])
        if path.is_dir():
            raise KeyringLocked("locked")
        return path

    def _read(self) -> dict[str, str]:
        path = self._path()
        held: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return held

    def _write(self, held: dict[str, str]) -> None:
        self._path().write_text(json.dumps(held))


class BusError(Exception):
    """What is behind a keyring fails by exceptions of its own."""


class BrokenKeyring(FileKeyring):
    """A keyring whose other end has gone."""

    def _path(self) -> Path:
        raise BusError("nobody on the bus")
