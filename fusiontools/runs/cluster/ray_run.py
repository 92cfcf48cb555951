"""A run on Ray Data, on this machine or on the cluster of `RAY_ADDRESS`.

Two passes over the files: one cuts them into blocks and gathers their ids, so that every record has one of its own
before a call is made; the other hands the blocks that are left to the workers. A row of Ray's is a block of ours. Of
Ray Data come the pools of workers, the bounded queues between reading and working, and the work of a worker or machine
that has died given to another. What is done is known by the files of the output, and not by Ray's own checkpoints.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import queue
import shutil
import socket
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fusiontools.errors import UsageError
from fusiontools.runs.cluster.chain_actor import BlockReport, ChainActor, ChainJob
from fusiontools.runs.cluster.record_blocks import BlockTask, FileBlock, index_file, keys_of_output, read_blocks
from fusiontools.runs.cluster.record_files import Location, reason_of

#: Blocks go through Ray's memory for objects on their way to a worker; so many MiB of it are plenty.
_OBJECT_STORE_BYTES = 256 << 20
#: So many blocks are under way in a worker, and as many wait there: none of its turns is idle while a block ends.
_BLOCKS_AT_ONCE = 2
#: So many files are read at once.
_READERS = 4
#: So often is a block tried whose worker dies.
_TRIES = 10
#: For how long a cluster is waited for.
_KNOCK_S = 10.0
#: How soon what the workers do is looked at again.
_LOOK_S = 1.0
#: Ray's sockets want a short path.
_SHORT, _FOLDERS, _LOCK = Path("/tmp"), "fuse-ray-", "fuse-ray.lock"  # noqa: S108 - mkdtemp makes the name
#: Ray tells neither a person nor its makers anything; what it has to say of errors comes as exceptions.
_SILENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@contextmanager
def open_ray(workers: int | None) -> Iterator[tuple[int, str | None]]:
    """Start Ray here, or join the cluster of `RAY_ADDRESS`.

    Yields:
        How many CPUs there are, and the folder that Ray writes to, where it was started here.

    Raises:
        UsageError: Ray is not installed, or the cluster does not answer.
    """
    for name, value in _SILENCE.items():
        os.environ.setdefault(name, value)
    address, folder = os.environ.get("RAY_ADDRESS"), None
    if address:
        _knock(address)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(f"Ray is not installed ({error.name}): pip install 'fusiontools[ray]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    try:
        with _deaf():
            if address and address != "local":
                ray.init(address=address, **quiet)
            else:
                folder = own_folder(_SHORT)
                cpus = os.cpu_count() or 1
                ray.init(
                    address="local",
                    num_cpus=max(cpus, workers or cpus) + 1,  # one more, that reads while all work
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=folder,
                    **quiet,
                )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"Ray at {address or 'this machine'} does not answer: {reason_of(error)}") from error
    try:
        _quieten_data()
        yield int(ray.cluster_resources().get("CPU", 1)), folder
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def own_folder(within: Path) -> str:
    """Make a folder for what Ray writes, and remove those of processes that were killed.

    A process holds a lock in its folder for as long as it lives; one without has only just been made.
    """
    for lock in within.glob(f"{_FOLDERS}*/{_LOCK}"):
        with suppress(OSError):  # another user's, held, or just removed
            held = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(held)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDERS, dir=within))
    unheld = folder / f"{_LOCK}.new"
    # Held until the process ends: nobody closes it.
    fcntl.flock(os.open(unheld, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)
    unheld.rename(folder / _LOCK)
    return str(folder)


def _knock(address: str) -> None:
    """Raise `UsageError` where nobody is at an address, for which Ray would wait for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), _KNOCK_S).close()
        except OSError as error:
            raise UsageError(f"RAY_ADDRESS: no cluster answers at {address}: {error.strerror or error}") from error


@contextmanager
def _deaf() -> Iterator[None]:
    """Let nothing reach standard error, which libraries of C++ write to past Python."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _quieten_data() -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Each block is handed on as soon as it is there.
    context.target_max_block_size = 1
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"ray\.")


def nodes() -> int:
    """Return how many machines the cluster has."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def index_files(
    files: Sequence[Location], size: int, needs: tuple[str, str] | None, most_bytes: int
) -> Iterator[FileBlock]:
    """Yield the blocks of all files, in no order; each file is read by one process, many at once.

    Raises:
        OSError: a file cannot be read.
    """

    def index(row: dict[str, Any]) -> Iterator[dict[str, bytes]]:
        number, file = pickle.loads(row["item"])  # noqa: S301 - written below
        try:
            for block in index_file(number, file, size, needs, most_bytes):
                yield {"item": pickle.dumps(block)}
        except OSError as error:
            yield {"item": pickle.dumps(OSError(error.errno, reason_of(error), file.shown))}

    yield from _items(_rows_of(list(enumerate(files))).flat_map(index))


def keys_done(files: Sequence[Location], most_bytes: int) -> Iterator[bytes]:
    """Yield the keys of the records in these files of the output, those of a file joined.

    Raises:
        OSError: a file cannot be read.
    """

    def read(row: dict[str, Any]) -> dict[str, bytes]:
        file = pickle.loads(row["item"])  # noqa: S301 - written below
        try:
            return {"item": pickle.dumps(b"".join(keys_of_output(file, most_bytes)))}
        except OSError as error:
            return {"item": pickle.dumps(OSError(error.errno, reason_of(error), file.shown))}

    yield from _items(_rows_of(files).map(read))


def run_tasks(
    job: ChainJob, files: Sequence[Location], tasks: Sequence[BlockTask], most_bytes: int
) -> Iterator[BlockReport | int]:
    """Take every block through the chain; yield what became of each as it ends, and every second how many are done.

    Yields:
        A report, or how many records of blocks that may not have ended are done.

    Raises:
        OSError: a file cannot be read, or workers die again and again.
    """
    import ray

    by_file: dict[int, list[BlockTask]] = {}
    for task in tasks:
        by_file.setdefault(task.block.file, []).append(task)
    watcher: Any = ray.remote(num_cpus=0)(RunWatcher).remote()
    told = replace(job, watcher=watcher)
    came: queue.SimpleQueue[BlockReport | None] = queue.SimpleQueue()
    work = [(files[number], wanted) for number, wanted in by_file.items()]
    # On a thread, so that the main one hears signals and can look at what goes on.
    handing = ThreadPoolExecutor(1, "ray").submit(_hand_out, told, work, most_bytes, came)
    handing.add_done_callback(lambda _: came.put(None))
    while True:
        try:
            report = came.get(timeout=_LOOK_S)
        except queue.Empty:
            done, stuck = ray.get(watcher.look.remote())
            if stuck is not None:
                why = (
                    f"{_TRIES} workers have died over the block {stuck}; take its records through fuse-panel to see why"
                )
                raise OSError(None, why, "Ray") from None
            yield done
            continue
        if report is None:
            break
        yield report
    handing.result()


def _hand_out(
    job: ChainJob, work: Sequence[tuple[Location, list[BlockTask]]], most_bytes: int, came: queue.SimpleQueue[Any]
) -> None:
    """Run the blocks and pass on their reports.

    Raises:
        OSError: a file cannot be read, or Ray gives up.
    """
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy
    from ray.exceptions import RayError

    def read(row: dict[str, Any]) -> Iterator[dict[str, bytes]]:
        file, wanted = pickle.loads(row["item"])  # noqa: S301 - written below
        for task, lines in read_blocks(file, wanted, most_bytes):
            yield {"task": pickle.dumps(task), "lines": b"\n".join(lines)}

    there = ray.cluster_resources().get("CPU", 1.0)
    # More workers than CPUs share them: none waits for what will not come.
    cpus = min(1.0, max(0.01, int(100 * there / job.workers) / 100))
    pool = ActorPoolStrategy(
        size=job.workers,
        max_concurrent_calls_per_actor=_BLOCKS_AT_ONCE,
        max_tasks_in_flight_per_actor=2 * _BLOCKS_AT_ONCE,
    )
    # Reading asks for no CPU: it would wait for ever where the workers have them all. What asks for as much as they do
    # would be made a part of each.
    blocks = _rows_of(work).flat_map(read, num_cpus=0, compute=TaskPoolStrategy(size=min(_READERS, len(work))))
    reports = blocks.map(ChainActor, fn_constructor_args=(job,), compute=pool, num_cpus=cpus)
    try:
        for row in reports.iter_rows():
            came.put(pickle.loads(row["report"]))  # noqa: S301 - our own worker wrote it
    except RayError as error:
        raise OSError(None, reason_of(error), "Ray") from error


class RunWatcher:
    """An actor that hears what the workers do between one report and the next."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._done = 0

    def begin(self, name: str) -> None:
        """Hear that a worker begins with a block."""
        self._begun[name] += 1

    def count(self, records: int) -> None:
        """Hear that so many more records are done."""
        self._done += records

    def look(self) -> tuple[int, str | None]:
        """Return how many records are done, and a block that workers die over."""
        name, times = max(self._begun.items(), key=lambda item: item[1], default=("", 0))
        return self._done, name if times > _TRIES else None


def _rows_of(items: Sequence[Any]) -> Any:
    """Return a dataset with a row for each, and each row on its own."""
    import ray.data

    rows = [{"item": pickle.dumps(item)} for item in items]
    return ray.data.from_items(rows, override_num_blocks=max(1, len(rows)))


def _items(dataset: Any) -> Iterator[Any]:
    for row in dataset.iter_rows():
        item = pickle.loads(row["item"])  # noqa: S301 - our own processes wrote it
        if isinstance(item, OSError):
            raise item
        yield item
