"""Where an endpoint's key comes from: the environment, a recipe's command, the system's keyring, a file.

The environment wins. `fuse-doctor --set-key` keeps a key under the name of its variable: in the system's keyring where
there is one, else in `~/.config/fusiontools/keys.json`, which its owner alone may read. That file says of every kept
key where it is, so a keyring is opened only for a key that was put there, and by whoever needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusiontools.errors import UsageError

if TYPE_CHECKING:
    import subprocess

#: What the keyring lists the keys under.
SERVICE = "fusiontools"
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{2,63}")
#: How long a command may take: somebody may have to touch a device for it.
_COMMAND_S = 30.0
_MOST_BYTES = 64 << 10
#: For so long a command's answer holds: what it prints may be a token that ends within the hour.
_HOLDS_S = 600.0
#: For so long its failure does: a server whose calls need it does not start it for each of them.
_FAILURE_HOLDS_S = 10.0
_LOOK_S = 0.05
_IN_KEYRING = {"keyring": True}
#: Keyrings below are plain files, or none at all.
_REAL_KEYRING = 1

#: The keys that came from elsewhere than the environment: what no output may repeat.
_handed_out: set[str] = set()


def find_key(variable: str | None, command: Sequence[str] = ()) -> str | None:
    """Return a key, or None where there is none.

    Args:
        variable: of the environment; a kept key has its name, too.
        command: prints the key, where the environment has none.

    Raises:
        UsageError: the command fails, or what was kept cannot be read.
    """
    if variable and (key := os.environ.get(variable, "").strip()):
        return key
    found: str | None = None
    if command:
        found = _key_command(tuple(command)).key()
    elif variable:
        found = _kept_key(variable, keys_file())
    if found:
        _handed_out.add(found)
    return found


def place_of_key(variable: str | None, command: Sequence[str] = ()) -> str | None:
    """Return where a key would come from, in words, or None; no command is run for it and no keyring opened.

    Raises:
        UsageError: the file of keys cannot be read.
    """
    if variable and os.environ.get(variable, "").strip():
        return f"{variable} is set"
    if command:
        return f"from {command[0]}"
    if variable and (kept := _read_file(keys_file()).get(variable)):
        return "in the keyring" if kept == _IN_KEYRING else f"in {keys_file().name}"
    return None


def known_keys() -> list[str]:
    """Return the keys outside the environment that are in this process, or in our file: what no output may repeat."""
    found = set(_handed_out)
    with contextlib.suppress(UsageError):
        found |= {str(entry["key"]) for entry in _read_file(keys_file()).values() if "key" in entry}
    return sorted(found)


def keyring_name() -> str | None:
    """Return what the system's keyring is called; None where keys go into our file."""
    ring = _keyring()
    return None if ring is None else type(ring).__module__.split(".")[-1]


def kept_names() -> tuple[str, ...]:
    """Return the variables whose keys were kept.

    Raises:
        UsageError: the file of keys cannot be read.
    """
    return tuple(_read_file(keys_file()))


def keep_key(variable: str, key: str) -> str:
    """Keep a key in the system's keyring, else in our file; return where it is, in words.

    Raises:
        UsageError: it is no key, or cannot be kept.
    """
    if not is_key(key):
        raise UsageError("this is no key: one line of visible ASCII characters is wanted")
    ring = _keyring()
    entry: dict[str, Any] = {"key": key}
    place = str(keys_file())
    if ring is not None:
        try:
            ring.set_password(SERVICE, variable, key)
            entry, place = _IN_KEYRING, f"the keyring ({keyring_name()})"
        except Exception as error:
            place += f" (the keyring did not take it: {_words(error, key)})"
    with _changing_file() as kept:
        kept[variable] = entry
    forget_found()
    return place


def forget_key(variable: str) -> bool:
    """Remove a kept key; return whether there was one.

    Raises:
        UsageError: it cannot be removed.
    """
    with _changing_file() as kept:
        entry = kept.pop(variable, None)
        if entry == _IN_KEYRING:
            _forget_in_keyring(variable)
    forget_found()
    return entry is not None


def forget_found() -> None:
    """Ask anew for every key that was found: one was changed, or is not taken any more."""
    _kept_key.cache_clear()
    _key_command.cache_clear()


def is_key(text: str) -> bool:
    """Return whether a text may be a key: one line of visible ASCII characters."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def is_variable(name: str) -> bool:
    """Return whether a key may be kept under this name, which looks like a variable and like no key."""
    return _VARIABLE.fullmatch(name) is not None and name.endswith(("KEY", "TOKEN"))


def keys_file() -> Path:
    """Return the file of kept keys."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fusiontools" / "keys.json"


def command_words(said: str | Sequence[str]) -> tuple[str, ...]:
    """Return a command's words as a recipe says them: a list, or a text that is split as a shell splits it.

    Raises:
        UsageError: it is none.
    """
    import shlex

    try:
        words = tuple(shlex.split(said) if isinstance(said, str) else said)
    except ValueError as error:
        raise UsageError(f"`api_key_command`: cannot be split into words: {error}") from None
    if not words or not words[0]:
        raise UsageError("`api_key_command` names no program")
    return words


# --- The file ---


@cache
def _kept_key(variable: str, file: Path) -> str | None:
    """Return a kept key; looked up once in a process."""
    entry = _read_file(file).get(variable)
    if entry is None:
        return None
    if entry != _IN_KEYRING:
        return str(entry["key"])
    ring = _keyring()
    if ring is None:
        raise UsageError(
            f"{variable} was kept in the system's keyring, and there is none here; export {variable}=…, "
            f"or keep it anew: fuse-doctor --set-key {variable}"
        )
    try:
        key = ring.get_password(SERVICE, variable)
    except Exception as error:
        raise UsageError(f"{variable}: the system's keyring cannot be read: {_words(error)}") from None
    return str(key).strip() or None if key else None


def _read_file(path: Path) -> dict[str, dict[str, Any]]:
    """Return what was kept, by variable: `{"key": …}`, or `{"keyring": true}`."""
    import json

    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise UsageError(f"{path}: others may read it, so no key is taken from it: chmod 600 {path}")
            kept = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError:
        kept = None
    if not isinstance(kept, dict) or not all(_is_entry(entry) for entry in kept.values()):
        raise UsageError(f"{path}: is no file of keys; remove it, and keep them anew: fuse-doctor --set-key NAME")
    return kept


def _is_entry(entry: Any) -> bool:
    return entry == _IN_KEYRING or (isinstance(entry, dict) and isinstance(entry.get("key"), str))


@contextlib.contextmanager
def _changing_file() -> Iterator[dict[str, dict[str, Any]]]:
    """Give what was kept, to be changed; written whole, and by one process at a time."""
    import json
    import secrets

    path = keys_file().resolve()  # a link into somebody's dotfiles stays one
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            kept = _read_file(path)
            yield kept
            ours = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            with os.fdopen(os.open(ours, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(kept, file, indent=2)
                file.write("\n")
            ours.replace(path)
        finally:
            os.close(folder)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


# --- The keyring ---
#
# Behind it is whatever the system has: D-Bus, a keychain, a plug-in of somebody's. Each fails by exceptions of its own,
# which are no bugs of ours: they are put in words.


def _keyring() -> Any:
    """Return the system's keyring; None where there is none, or none that is safer than a file."""
    try:
        import keyring

        ring = keyring.get_keyring()
        return ring if ring.priority >= _REAL_KEYRING else None
    except Exception:
        return None  # not installed, set to what is not there, or its own settings cannot be read


def _forget_in_keyring(variable: str) -> None:
    if (ring := _keyring()) is None:
        return
    from keyring.errors import PasswordDeleteError

    try:
        ring.delete_password(SERVICE, variable)
    except PasswordDeleteError:
        return  # somebody has removed it there
    except Exception as error:
        raise UsageError(f"{variable}: the system's keyring does not let it go: {_words(error)}") from None


def _words(error: Exception, key: str = "") -> str:
    """Return what a keyring says, on one line and without the key."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said.replace(key, "***") if key else said


# --- A command ---


class _KeyCommand:
    """A command that prints a key; asked by one thread at a time, and what came of it holds for a while."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        self._turn = threading.Lock()
        self._until_s = -math.inf
        self._found = ""
        self._failure = ""

    def key(self) -> str:
        """Return the key.

        Raises:
            UsageError: there is none, or a moment ago there was none.
        """
        with self._turn:
            if time.monotonic() >= self._until_s:
                self._found = self._failure = ""
                try:
                    self._found = _run(self._words)
                except UsageError as error:
                    self._failure = error.message
                self._until_s = time.monotonic() + (_FAILURE_HOLDS_S if self._failure else _HOLDS_S)
            if self._failure:
                raise UsageError(self._failure)
            return self._found


@lru_cache(maxsize=64)
def _key_command(words: tuple[str, ...]) -> _KeyCommand:
    """Return the one that runs these words, in this process."""
    return _KeyCommand(words)


def _run(words: tuple[str, ...]) -> str:
    """Run a command; return the first line that it prints. Nothing else of it is repeated anywhere.

    Raises:
        UsageError: it cannot be run, fails, takes too long, or prints no key.
    """
    import signal
    import subprocess

    name = words[0]
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no command"
        raise UsageError(f"api_key_command: {name} cannot be run: {reason}") from None
    with process:
        try:
            data = _output(process)
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
    if data is None:
        raise UsageError(f"api_key_command: {name} has not ended within {_COMMAND_S:g} s, or printed too much")
    if process.returncode:
        raise UsageError(f"api_key_command: {name} ended with status {process.returncode}; run it by hand to see why")
    key = (data.decode("utf-8", "replace").strip().splitlines() or [""])[0].strip()
    if not is_key(key):
        raise UsageError(f"api_key_command: {name} printed {'no key' if key else 'nothing'}")
    return key


def _output(process: subprocess.Popen[bytes]) -> bytes | None:
    """Return what a program prints until it ends, also where a child of it keeps the pipe; None where it does not."""
    import select
    import subprocess

    assert process.stdout is not None  # noqa: S101 - it was started so
    pipe, data, deadline = process.stdout.fileno(), b"", time.monotonic() + _COMMAND_S
    ended = False
    while time.monotonic() < deadline and len(data) < _MOST_BYTES:
        if select.select([pipe], [], [], 0 if ended else _LOOK_S)[0]:
            piece = os.read(pipe, _MOST_BYTES)
            data += piece
            if piece:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
                return data
            return None
        if ended:
            return data
        ended = process.poll() is not None
    return None
