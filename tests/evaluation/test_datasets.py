"""The sets that come along and the pinned ones: what they hold, and how they are fetched and read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tasking import asked, built_in, records, run

from fusiontools.answers.keys import vote_keys
from fusiontools.errors import UsageError
from fusiontools.evaluation.task import task_of
from fusiontools.evaluation.tasks.datasets import SHAPES, load_sets, set_tasks
from fusiontools.evaluation.tasks.rows import (
    Draft,
    record_of,
    typed_prompts,
)

BUILT_IN = ("short", "code", "rubric")
PINNED = ("gsm8k", "humaneval", "mmlu", "gpqa", "math", "arc", "draco")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_task_is_one_that_fuse_grade_can_read(name: str) -> None:
    for record in built_in(name):
        task = task_of(record["meta"], asked(record))

        assert task.grader == record["meta"]["grader"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_set_says_source_licence_and_what_it_held(name: str) -> None:
    task_set = load_sets().sets[name]
    held = hashlib.sha256(task_set.file.read_bytes()).hexdigest()  # type: ignore[union-attr]

    for record in built_in(name):
        meta = record["meta"]

        assert (meta["source"], meta["licence"]) == ("fusiontools", "MIT")
        assert meta["revision"] == f"sha256:{held[:16]}"


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_table_counts_the_built_in_tasks_rightly_and_no_id_is_used_twice(name: str) -> None:
    tasks = built_in(name)

    assert len(tasks) == len({task["id"] for task in tasks}) == load_sets().sets[name].tasks
    assert all(task["id"].startswith(f"{name}/") for task in tasks)


def test_every_category_of_the_short_set_has_sixty_questions() -> None:
    counts = Counter(record["meta"]["category"] for record in built_in("short"))

    assert counts.keys() == {"arithmetic", "choice", "facts", "yes_no"}
    assert min(counts.values()) >= 60


def test_the_right_letters_of_the_choices_are_spread_evenly() -> None:
    letters = Counter(r["meta"]["target"] for r in built_in("short") if r["meta"]["category"] == "choice")

    assert set(letters.values()) == {16}


def test_no_short_question_is_asked_twice() -> None:
    questions = [asked(record) for record in built_in("short")]

    assert len(set(questions)) == len(questions)


def test_the_sums_of_the_short_set_are_right() -> None:
    sums = {
        "plus": lambda a, b: a + b,
        "minus": lambda a, b: a - b,
        "times": lambda a, b: a * b,
        "divided by": lambda a, b: a / b,
    }
    checked = 0
    for record in built_in("short"):
        found = re.fullmatch(r"What is (\d+) (plus|minus|times|divided by) (\d+)\?", asked(record))
        if found:
            assert record["meta"]["target"] in (
                sums[found[2]](int(found[1]), int(found[3])),
                # The same as a choice.
                "ABCD",
            )
            checked += 1

    assert checked >= 30


@pytest.mark.parametrize("record", built_in("code"), ids=lambda record: record["id"])
def test_the_reference_passes_its_tests_and_a_stub_does_not(record: Any) -> None:
    meta = record["meta"]
    stub = f"def {meta['entry_point']}(*args):\n    return 'nothing'\n"

    exec(meta["target"] + "\n" + meta["tests"], {})  # noqa: S102 - our own programs

    with pytest.raises(AssertionError):
        exec(stub + meta["tests"], {})  # noqa: S102


def test_every_rubric_task_has_criteria_that_add_and_one_that_takes_away() -> None:
    for record in built_in("rubric"):
        weights = [criterion["weight"] for criterion in record["meta"]["rubric"]]

        assert 5 <= len(weights) <= 8
        assert min(weights) < 0 < max(weights)


def test_every_pinned_set_names_a_commit_and_a_checksum_for_every_file() -> None:
    sets = load_sets().sets

    assert {name for name, each in sets.items() if each.splits} == set(PINNED) == set(SHAPES)
    for name in PINNED:
        for pinned in (sets[name].splits or {}).values():
            assert re.fullmatch(r"[0-9a-f]{40}", pinned.revision)
            assert re.fullmatch(r"[0-9a-f]{64}", pinned.sha256)


ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Two boxes of 600?", "answer": "2*600 = <<2*600=1200>>1200\n#### 1,200"},
    "humaneval": {
        "task_id": "HumanEval/7",
        "prompt": 'def one():\n    """Return 1."""\n',
        "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
        "entry_point": "one",
    },
    "mmlu": {"question": "Which?", "subject": "anatomy", "choices": ["w", "x", "y", "z"], "answer": 2},
    "gpqa": {
        "Record ID": "rec1",
        "Question": "Why?",
        "Correct Answer": "right\n",
        "Incorrect Answer 1": "wrong 1",
        "Incorrect Answer 2": "wrong 2",
        "Incorrect Answer 3": "wrong 3",
        "High-level domain": "Physics",
        "Canary String": "never shown",
    },
    "math": {
        "problem": "Half of $3$?",
        "solution": "…",
        "answer": r"\frac{3}{2}",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/algebra/1.json",
    },
    "arc": {
        "id": "Mercury_1",
        "question": "Hot?",
        "choices": {"text": ["ice", "fire", "snow"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    },
    "draco": {
        "id": "uuid-1",
        "domain": "Law",
        "problem": "Find it.",
        "answer": json.dumps(
            {
                "sections": [
                    {"id": "accuracy", "criteria": [{"id": "a", "weight": 10, "requirement": "Says so."}]},
                    {"id": "citations", "criteria": [{"id": "b", "weight": -5, "requirement": "Lies."}]},
                ]
            }
        ),
    },
}
WANTED: dict[str, dict[str, Any]] = {
    "gsm8k": {"target": "1200", "grader": "numeric", "category": "arithmetic"},
    "humaneval": {"grader": "code", "entry_point": "one", "category": "code"},
    "mmlu": {"target": "C", "grader": "choice", "category": "anatomy"},
    "gpqa": {"grader": "choice", "category": "Physics"},
    "math": {"target": r"\frac{3}{2}", "grader": "numeric", "category": "Algebra", "level": 1},
    "arc": {"target": "B", "grader": "choice", "category": "science"},
    "draco": {"grader": "rubric", "category": "Law"},
}
IDS = {
    "gsm8k": "gsm8k/test/3",
    "humaneval": "humaneval/test/7",
    "mmlu": "mmlu/test/3",
    "gpqa": "gpqa/test/rec1",
    "math": "math/test/algebra/1",
    "arc": "arc/test/Mercury_1",
    "draco": "draco/test/uuid-1",
}


def shaped(name: str, row: dict[str, Any] | None = None) -> Any:
    return record_of(SHAPES[name](row or ROWS[name], f"{name}/test/3"), load_sets().sets[name].prompts)


@pytest.mark.parametrize("name", PINNED)
def test_a_row_of_a_benchmark_becomes_a_record_that_fuse_grade_can_read(name: str) -> None:
    record = shaped(name)

    assert record["id"] == IDS[name]
    assert {key: record["meta"].get(key) for key in WANTED[name]} == WANTED[name]
    assert task_of(record["meta"], asked(record)).grader == WANTED[name]["grader"]


@pytest.mark.parametrize("name", ["gsm8k", "mmlu", "gpqa", "math", "arc"])
def test_a_question_with_one_answer_asks_for_it_on_the_last_line(name: str) -> None:
    assert '"Answer: X"' in asked(shaped(name))


@pytest.mark.parametrize(("name", "shown"), [("mmlu", "A) w\nB) x\nC) y\nD) z"), ("arc", "A) ice\nB) fire\nC) snow")])
def test_published_choices_keep_their_order(name: str, shown: str) -> None:
    assert asked(shaped(name)).endswith(shown)


def test_the_options_of_gpqa_are_shuffled_by_the_task_so_that_the_first_is_not_always_right() -> None:
    tasks = [shaped("gpqa", {**ROWS["gpqa"], "Record ID": f"rec{n}"}) for n in range(200)]

    letters = Counter(task["meta"]["target"] for task in tasks)

    assert set(letters) == set("ABCD")
    assert min(letters.values()) > 25
    for task in tasks:
        assert f"{task['meta']['target']}) right\n" in asked(task) + "\n"
        assert "never shown" not in json.dumps(task)


def test_the_tests_of_humaneval_are_run_and_the_stub_is_kept_for_a_mere_body() -> None:
    meta = shaped("humaneval")["meta"]

    exec(meta["prompt"] + meta["target"] + meta["tests"], {})  # noqa: S102 - written above

    with pytest.raises(AssertionError):
        exec(meta["prompt"] + "    return 2\n" + meta["tests"], {})  # noqa: S102


@pytest.mark.parametrize(
    ("answer", "grader"),
    [("42", "numeric"), (r"\frac34", "numeric"), ("-0.5", "numeric"), (r"3\sqrt{13}", "exact"), ("(3, 4)", "exact"),
     (r"2220_5", "exact"), ("x+1", "exact"), (r"\text{Evelyn}", "exact")],
)  # fmt: skip
def test_a_target_of_math_is_numeric_only_where_it_is_one_plain_number(answer: str, grader: str) -> None:
    record = shaped("math", {**ROWS["math"], "answer": answer})

    assert record["meta"]["grader"] == grader


def test_the_criteria_of_draco_keep_their_sections_and_negative_weights() -> None:
    assert shaped("draco")["meta"]["rubric"] == [
        {"criterion": "Says so.", "weight": 10, "category": "accuracy"},
        {"criterion": "Lies.", "weight": -5, "category": "citations"},
    ]


class Hub:
    """A hub with one file, and what was asked of it."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                hub.asked.append(self.path)
                body = hub.content or b"no"
                self.send_response(401 if hub.content is None else 200)
                if hub.content is None:
                    self.send_header("X-Error-Code", "GatedRepo")
                else:
                    commit = re.search(r"[0-9a-f]{40}", self.path)
                    self.send_header("X-Repo-Commit", commit[0] if commit else "")
                    self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def env(self, home: Path) -> dict[str, str]:
        return {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server.server_address[1]}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
        }


@pytest.fixture
def hub() -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the extra eval is not installed")
    made = Hub(b"")
    yield made
    made.server.shutdown()
    made.server.server_close()


FETCH = """
import json, sys
from msgspec.structs import replace
from fusiontools.record import jsonl
from fusiontools.evaluation.tasks.datasets import Pinned, load_sets, set_tasks
name, file, sha256 = sys.argv[1:]
task_set = load_sets().sets[name]
task_set = replace(task_set, splits={"test": Pinned(task_set.source, task_set.revision, file, sha256)})
for record in set_tasks(task_set, None, lambda message: print(message, file=sys.stderr)):
    sys.stdout.buffer.write(jsonl.write(record))
"""


def fetch(name: str, file: str, content: bytes, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    sha256 = hashlib.sha256(content).hexdigest()
    return subprocess.run(
        [sys.executable, "-c", FETCH, name, file, sha256],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )


def test_a_set_is_downloaded_at_its_commit_and_then_read_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    hub.content = (json.dumps(ROWS["math"]) + "\n").encode()
    env = hub.env(tmp_path)

    first = fetch("math", "test.jsonl", hub.content, env)
    requests = len(hub.asked)
    second = fetch("math", "test.jsonl", hub.content, {**env, "HF_HUB_OFFLINE": "1"})

    [record] = records(first)
    assert record["id"] == "math/test/algebra/1"
    assert record["meta"]["revision"] == "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
    assert (record["meta"]["source"], record["meta"]["split"]) == ("HuggingFaceH4/MATH-500", "test")
    wanted = "/datasets/HuggingFaceH4/MATH-500/resolve/6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be/test.jsonl"
    assert {path for path in hub.asked if "/resolve/" in path} == {wanted}
    assert first.stderr.startswith("downloading HuggingFaceH4/MATH-500 at 6e4ed1a2a79a: test.jsonl")
    assert (second.stdout, second.stderr) == (first.stdout, "")
    assert len(hub.asked) == requests


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "mmlu", "arc"])
def test_the_rows_of_a_parquet_file_are_read(name: str, hub: Hub, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra eval is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([ROWS[name]] * 3), path)
    hub.content = path.read_bytes()

    done = fetch(name, "main/test.parquet", hub.content, hub.env(tmp_path))

    assert done.returncode == 0, done.stderr
    assert [asked(record) for record in records(done)] == [asked(shaped(name))] * 3


def test_the_rows_of_the_gated_csv_are_read_once_it_may_be_had(hub: Hub, tmp_path: Path) -> None:
    header = ",".join(f'"{key}"' for key in ROWS["gpqa"])
    cells = ",".join(f'"{value}"' for value in ROWS["gpqa"].values())
    hub.content = f"{header}\n{cells}\n".encode()

    done = fetch("gpqa", "gpqa_diamond.csv", hub.content, hub.env(tmp_path))

    [record] = records(done)
    assert sorted(re.findall(r"(?m)^[A-D]\) (.*)$", asked(record))) == ["right", "wrong 1", "wrong 2", "wrong 3"]


def test_a_file_that_is_not_the_pinned_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.content = b'{"problem": "another file"}\n'

    done = run("math", env=hub.env(tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert "not the file that was pinned: its SHA-256 is " in done.stderr
    assert hashlib.sha256(hub.content).hexdigest() in done.stderr


def test_a_gated_set_says_where_its_terms_are_accepted(hub: Hub, tmp_path: Path) -> None:
    hub.content = None

    done = run("gpqa", "-n", "1", env=hub.env(tmp_path))

    assert done.returncode == 2
    assert "accept its terms at https://huggingface.co/datasets/Idavidrein/gpqa" in done.stderr
    assert "HF_TOKEN" in done.stderr


def test_a_set_that_is_not_cached_is_an_error_in_words_where_there_is_no_network(hub: Hub, tmp_path: Path) -> None:
    done = run("arc", env={**hub.env(tmp_path), "HF_HUB_OFFLINE": "1"})

    assert done.returncode == 2
    assert "fuse-tasks: allenai/ai2_arc at 210d026faf99: ARC-Challenge/test" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.asked == []


def test_without_the_extra_it_is_named_and_the_built_in_sets_still_work() -> None:
    code = 'import sys; sys.modules["huggingface_hub"] = None; from fusiontools.cli.tasks import main; main()'

    missing = subprocess.run([sys.executable, "-c", code, "gsm8k"], capture_output=True, text=True, check=False)
    built_in_set = subprocess.run([sys.executable, "-c", code, "code"], capture_output=True, text=True, check=False)

    assert missing.returncode == 2
    assert "[eval]" in missing.stderr
    assert built_in_set.returncode == 0


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="gsm8k has no such split; did you mean 'train'"):
        list(set_tasks(load_sets().sets["gsm8k"], "trian", lambda message: None))


def test_the_options_of_every_prompt_are_seen_by_the_one_who_reads_the_vote() -> None:
    sets = load_sets()
    for name in ("letter", "choice"):
        prompts = typed_prompts(name, sets.prompts)
        question = asked(record_of(Draft("Which is hot?", ["ice", "fire"], {}), prompts))

        assert vote_keys(["It is fire.\nAnswer: B", "fire"], "choice", question) == ("choice", ["B", "B"])
