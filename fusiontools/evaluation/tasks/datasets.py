"""Which benchmarks and built-in sets there are, and the records of one; the table is `configs/tasks/sets.yaml`.

A benchmark is a pinned file on the Hugging Face Hub, fetched by the Hub's client and read with pyarrow; `datasets`
would bring pandas, a second cache, and a cast of every table. A file stays in the client's cache (`HF_HOME`), and its
SHA-256 is checked each time it is used; what is cached needs no network. A row becomes a draft by a function:

gsm8k      the target is what stands behind `####`, without thousands separators; grader numeric
humaneval  the tests end with `check(entry_point)`; `meta.prompt` is the stub that a mere body completes; grader code
mmlu, arc  the options keep their order, so that scores compare with published ones; grader choice
gpqa       the right answer stands first in every row, so the options are shuffled, by the task's id: the same question
           in every run, whatever the sample's seed; grader choice
math       grader numeric where the target is one plain number, else exact: LaTeX, read as fuse-vote reads it
draco      weighted criteria in four sections, some negative; grader rubric
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.answers.keys import vote_keys
from fusiontools.errors import InputError, UsageError, install_line, nearest
from fusiontools.evaluation.tasks.files import read_yaml, rows_of
from fusiontools.evaluation.tasks.rows import LETTERS, BadRow, Draft, Prompts, criteria_of, draft_of, record_of
from fusiontools.record import jsonl
from fusiontools.record.schemas import data_dir
from fusiontools.record.sections import digest
from fusiontools.record.types import Record

_BATCH = 512


class Pinned(Struct, frozen=True):
    """One file, at one commit, with the only content that it may have."""

    source: str
    revision: str
    file: str
    sha256: str
    gated: bool = False

    @property
    def shown(self) -> str:
        return f"{self.source} at {self.revision[:12]}: {self.file}"


def fetch(pinned: Pinned, say: Callable[[str], None]) -> Path:
    """Return the file, from the cache or the Hub.

    Raises:
        UsageError: the client is not installed, the file is not to be had, or it is not the one that was pinned.
    """
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import GatedRepoError
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise _explain_missing() from None
    found = try_to_load_from_cache(pinned.source, pinned.file, repo_type="dataset", revision=pinned.revision)
    if not isinstance(found, str):
        say(f"downloading {pinned.shown}")
        disable_progress_bars()
        # Its warnings about retries and tokens would stand between our own lines; what fails is told below.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            found = hf_hub_download(pinned.source, pinned.file, repo_type="dataset", revision=pinned.revision)
        except GatedRepoError:
            raise UsageError(_explain_gate(pinned)) from None
        except OSError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"{pinned.shown}: {reason}{_hint_gate(pinned)}") from None
    _check_hash(Path(found), pinned)
    return Path(found)


def read_dataset(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet, JSON Lines or CSV file as they are read."""
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError:
            raise _explain_missing() from None

        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from csv.DictReader(stream)
    else:
        with path.open("rb") as lines:
            yield from (jsonl.loads(line) for line in lines if line.strip())


def _check_hash(path: Path, pinned: Pinned) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != pinned.sha256:
        raise UsageError(
            f"{path}: not the file that was pinned: its SHA-256 is {found}, not {pinned.sha256};"
            " delete it and try again"
        )


def _explain_missing() -> UsageError:
    return UsageError(f"this set is downloaded: {install_line('eval')}, or take a built-in one (--list)")


def _explain_gate(pinned: Pinned) -> str:
    return (
        f"{pinned.source} is gated: accept its terms at https://huggingface.co/datasets/{pinned.source} with your"
        " account, then log in with `hf auth login`, or export HF_TOKEN"
    )


def _hint_gate(pinned: Pinned) -> str:
    return f"; {_explain_gate(pinned)}" if pinned.gated else ""


_PLAIN_NUMBER = re.compile(r"-?\d+(?:\.\d+|/\d+)?")


def gsm8k(row: dict[str, Any], task_id: str) -> Draft:
    target = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return _make_draft(task_id, row["question"], target, "numeric", "arithmetic")


def humaneval(row: dict[str, Any], task_id: str) -> Draft:
    stem = task_id.rpartition("/")[0]
    code = {
        "tests": f"{row['test'].rstrip()}\n\ncheck({row['entry_point']})\n",
        "prompt": row["prompt"],
        "entry_point": row["entry_point"],
    }
    number = row["task_id"].rpartition("/")[2]
    return _make_draft(f"{stem}/{number}", row["prompt"].rstrip(), row["canonical_solution"], "code", "code", **code)


def mmlu(row: dict[str, Any], task_id: str) -> Draft:
    return _make_draft(
        task_id, row["question"], LETTERS[row["answer"]], "choice", row["subject"], options=list(row["choices"])
    )


def gpqa(row: dict[str, Any], task_id: str) -> Draft:
    task_id = f"{task_id.rpartition('/')[0]}/{row['Record ID']}"
    right = row["Correct Answer"].strip()
    options = [right, *(row[f"Incorrect Answer {i}"].strip() for i in (1, 2, 3))]
    order = sorted(range(len(options)), key=lambda at: digest(task_id, str(at)))
    shuffled = [options[at] for at in order]
    target = LETTERS[order.index(0)]
    return _make_draft(task_id, row["Question"].strip(), target, "choice", row["High-level domain"], options=shuffled)


def arc(row: dict[str, Any], task_id: str) -> Draft:
    stem, _, _ = task_id.rpartition("/")
    labels, texts = list(row["choices"]["label"]), list(row["choices"]["text"])
    # Some questions count their options 1, 2, 3.
    target = LETTERS[labels.index(row["answerKey"])]
    return _make_draft(f"{stem}/{row['id']}", row["question"], target, "choice", "science", options=texts)


def math(row: dict[str, Any], task_id: str) -> Draft:
    split = task_id.split("/")[1]
    name = row["unique_id"].removeprefix(f"{split}/").removesuffix(".json")
    target = row["answer"]
    kind, [key] = vote_keys([rf"\boxed{{{target}}}"])
    grader = "numeric" if kind == "number" and key and _PLAIN_NUMBER.fullmatch(key) else "exact"
    return _make_draft(f"math/{split}/{name}", row["problem"], target, grader, row["subject"], level=row["level"])


def draco(row: dict[str, Any], task_id: str) -> Draft:
    rubric = criteria_of(json.loads(row["answer"]))
    return _make_draft(
        f"{task_id.rpartition('/')[0]}/{row['id']}", row["problem"], None, "rubric", row["domain"], rubric=rubric
    )


SHAPES: dict[str, Callable[[dict[str, Any], str], Draft]] = {
    "gsm8k": gsm8k,
    "humaneval": humaneval,
    "mmlu": mmlu,
    "gpqa": gpqa,
    "arc": arc,
    "math": math,
    "draco": draco,
}


def _make_draft(task_id: str, question: str, target: Any, grader: str, category: str, **more: Any) -> Draft:
    options = more.pop("options", [])
    said = {"target": target} if target is not None else {}
    return Draft(question, options, {"id": task_id, "meta": {**said, "grader": grader, "category": category, **more}})


class TaskSet(Struct, frozen=True):
    """A named set: in a file of ours, or in pinned files by split, the usual one first."""

    name: str
    about: str
    source: str
    licence: str
    prompts: Prompts
    tasks: int
    file: Path | None = None
    splits: dict[str, Pinned] | None = None
    gated: bool = False

    @property
    def revision(self) -> str:
        """Return the commit, or what a file of ours holds."""
        if self.splits:
            return next(iter(self.splits.values())).revision
        return f"sha256:{hashlib.sha256(self.file.read_bytes()).hexdigest()[:16]}" if self.file else ""


class Sets(Struct, frozen=True):
    """All sets, and all prompts, by name."""

    sets: dict[str, TaskSet]
    prompts: dict[str, str]

    @property
    def own_prompts(self) -> Prompts:
        """Return how people's own tasks are put: as they stand."""
        return Prompts(self.prompts["plain"], self.prompts["choice"])


def load_sets() -> Sets:
    """Read the table."""
    folder = data_dir("configs") / "tasks"
    table = read_yaml(folder / "sets.yaml")
    prompts: dict[str, str] = table["prompts"]
    return Sets({name: _make_set(name, spec, prompts, folder) for name, spec in table["sets"].items()}, prompts)


def set_tasks(task_set: TaskSet, split: str | None, say: Callable[[str], None]) -> Iterator[Record | BadRow]:
    """Yield the records of a set.

    Raises:
        UsageError: no such split; a file that is not to be had, or not the one that was pinned.
    """
    meta = {"source": task_set.source, "revision": task_set.revision, "licence": task_set.licence}
    if task_set.file is not None:
        return own_tasks(str(task_set.file), task_set.prompts, meta)
    return _pinned_tasks(task_set, split, say, meta)


def own_tasks(name: str, prompts: Prompts, meta: dict[str, Any] | None = None) -> Iterator[Record | BadRow]:
    """Yield the records of a file as they are read, and what is wrong with the rows that are none.

    Args:
        meta: what to say of every task; by default, from which file it is.
    """
    known = meta if meta is not None else {} if name == "-" else {"source": Path(name).name}
    for row in rows_of(name):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield record_of(_with_meta(draft_of(row.data), known), prompts)
        except InputError as error:
            yield BadRow(row.place, error.message)


def _pinned_tasks(
    task_set: TaskSet, split: str | None, say: Callable[[str], None], meta: dict[str, Any]
) -> Iterator[Record]:
    splits = task_set.splits or {}
    chosen = split or next(iter(splits))
    if chosen not in splits:
        raise UsageError(f"--split {chosen!r}: {task_set.name} has no such split{nearest(chosen, list(splits))}")
    shape = SHAPES[task_set.name]
    path = fetch(splits[chosen], say)
    for number, row in enumerate(read_dataset(path)):
        draft = shape(row, f"{task_set.name}/{chosen}/{number}")
        yield record_of(_with_meta(draft, {"split": chosen, **meta}), task_set.prompts)


def _with_meta(draft: Draft, known: dict[str, Any]) -> Draft:
    """Return the draft with what is known of its file, behind what the task says itself."""
    meta = draft.data["meta"]
    more = {key: value for key, value in known.items() if key not in meta}
    return replace(draft, data={**draft.data, "meta": {**meta, **more}})


def _make_set(name: str, spec: dict[str, Any], prompts: dict[str, str], folder: Path) -> TaskSet:
    plain = prompts[spec["prompt"]]
    gated = spec.get("gated", False)
    pins = {
        split: Pinned(spec["source"], spec["revision"], each["file"], each["sha256"], gated)
        for split, each in spec.get("splits", {}).items()
    }
    usual = next(iter(spec["splits"].values())) if pins else spec
    return TaskSet(
        name=name,
        about=spec["about"],
        source=spec["source"],
        licence=spec["licence"],
        prompts=Prompts(plain, prompts[spec.get("choice_prompt", spec["prompt"])]),
        tasks=usual["tasks"],
        file=folder / spec["file"] if "file" in spec else None,
        splits=pins or None,
        gated=gated,
    )
