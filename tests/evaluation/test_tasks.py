"""`fuse-tasks`: built-in sets, pinned benchmarks, people's own files, samples, epochs, prompts."""

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
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers.keys import vote_keys
from fusiontools.errors import InputError, UsageError
from fusiontools.evaluation.task import task_of
from fusiontools.evaluation.tasks.datasets import SHAPES, TaskSet, load_sets, own_tasks, set_tasks
from fusiontools.evaluation.tasks.files import rows_of
from fusiontools.evaluation.tasks.rows import (
    BadRow,
    Draft,
    Prompts,
    criteria_of,
    draft_of,
    record_of,
    repeated,
    typed_prompts,
)
from fusiontools.evaluation.tasks.sample import Chooser
from fusiontools.record import jsonl

PLAIN = Prompts("{question}", "{question}\n{options}")
BUILT_IN = ("short", "code", "rubric")
PINNED = ("gsm8k", "humaneval", "mmlu", "gpqa", "math", "arc", "draco")


def run(*args: str, env: dict[str, str] | None = None, typed: str = "") -> subprocess.CompletedProcess[str]:
    code = "from fusiontools.cli.tasks import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def built_in(name: str) -> list[Any]:
    return list(set_tasks(load_sets().sets[name], None, lambda message: None))


def asked(record: Any) -> str:
    return str(record["messages"][-1]["content"])


def own(row: dict[str, Any]) -> Any:
    return record_of(draft_of(row), PLAIN)


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# The built-in sets


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


# The pinned sets


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


# Downloads, from a hub of our own


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
from dataclasses import replace
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
    assert "install fusiontools[eval]" in missing.stderr
    assert built_in_set.returncode == 0


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="gsm8k has no such split; did you mean 'train'"):
        list(set_tasks(load_sets().sets["gsm8k"], "trian", lambda message: None))


# People's own rows


def test_a_row_of_fusion_engine_reads_as_it_is() -> None:
    record = own({"id": "mc1", "prompt": "A or B?", "target": "B", "grader": "multiple_choice", "category": "science"})

    assert record == {
        "id": "mc1",
        "messages": [{"role": "user", "content": "A or B?"}],
        "meta": {"target": "B", "grader": "choice", "category": "science"},
    }


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("exact_match", "exact"), ("multiple_choice", "choice"), ("numeric", "numeric"), ("contains", "contains")],
)
def test_the_graders_of_fusion_engine_are_known(theirs: str, ours: str) -> None:
    assert own({"prompt": "?", "target": "B", "grader": theirs})["meta"]["grader"] == ours


def test_a_program_task_of_fusion_engine_brings_its_tests_along() -> None:
    row = {"id": "HumanEval/0", "prompt": "Complete it.", "target": "", "grader": "code_exec", "category": "code",
           "test": "def check(candidate):\n    assert candidate() == 1", "entry_point": "one"}  # fmt: skip

    meta = own(row)["meta"]

    assert meta["grader"] == "code"
    assert meta["tests"].endswith("\n\ncheck(one)\n")
    exec("def one(): return 1\n" + meta["tests"], {})  # noqa: S102 - written above


def test_weighted_criteria_make_a_rubric_task() -> None:
    row = {
        "id": "t1",
        "prompt": "Explain.",
        "criteria": [{"text": "Right.", "weight": 10}, {"text": "Wrong.", "weight": -5}],
    }

    assert own(row)["meta"] == {
        "rubric": [{"criterion": "Right.", "weight": 10}, {"criterion": "Wrong.", "weight": -5}],
        "grader": "rubric",
    }


def test_what_has_no_meaning_goes_to_meta_and_what_is_wanted_of_the_answer_to_params() -> None:
    record = own({"prompt": "?", "target": 1, "difficulty": "hard", "max_tokens": 5, "system": "Be brief."})

    assert record["meta"] == {"target": 1, "difficulty": "hard"}
    assert record["params"] == {"max_tokens": 5}
    assert record["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_record_stays_as_it_is() -> None:
    record = {
        "id": "a",
        "messages": [{"role": "user", "content": "?"}],
        "mine": [1],
        "answer": {"content": "x", "by": "synth", "model": "m", "finish_reason": "stop", "tool_calls": []},
        "meta": {"target": "y", "grader": {"name": "numeric", "tolerance": 0.1}, "lang": "en"},
    }

    assert own(record) == record


def test_a_task_without_an_id_gets_one_from_its_question() -> None:
    first, again, other = (own({"prompt": text, "target": "x"}) for text in ("a?", "a?", "b?"))

    assert first["id"] == again["id"] != other["id"]
    assert re.fullmatch(r"[0-9a-f]{16}", first["id"])


def test_an_id_that_is_a_number_becomes_text() -> None:
    assert own({"id": 17, "prompt": "?", "target": "x"})["id"] == "17"


@pytest.mark.parametrize("target", ["B", "b", "four", 1])
def test_the_right_option_is_a_letter_a_text_or_a_position(target: Any) -> None:
    record = own({"question": "2+2?", "choices": ["three", "four"], "answer": target})

    assert record["meta"] == {"target": "B", "grader": "choice"}
    assert asked(record) == "2+2?\nA) three\nB) four"


def test_a_number_that_could_be_position_or_text_is_refused() -> None:
    with pytest.raises(InputError, match="1 is a position and an option's text; give the letter"):
        own({"question": "?", "choices": ["1", "2"], "answer": 1})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"target": "x"}, "no `prompt`, `question` or `messages`"),
        ({"prompt": " ", "target": "x"}, "$.prompt: a question is text, and not empty"),
        ({"prompt": "?"}, "nothing to grade by"),
        ({"prompt": "?", "target": True}, "$.target: a target is text, a number"),
        ({"prompt": "?", "target": []}, "$.target: a target is text, a number"),
        ({"prompt": "?", "target": "x", "grader": "exakt"}, "there is no grader 'exakt'; did you mean 'exact'"),
        ({"prompt": "?", "target": "x", "grader": "rubric"}, "the grader 'rubric' needs `rubric`"),
        ({"prompt": "?", "grader": "code", "target": "x"}, "the grader 'code' needs `tests`"),
        ({"prompt": "?", "options": ["a"], "target": "A"}, "$.options: options are a list of 2 to 26"),
        ({"prompt": "?", "options": ["a", "b"], "target": "C"}, "'C' is not one of the 2 options"),
        ({"prompt": "?", "rubric": "be good"}, "$.rubric: a rubric is a list of criteria"),
        ({"prompt": "?", "rubric": [{"weight": 1}]}, "$.rubric[0]: this criterion has no text"),
        ({"prompt": "?", "rubric": [{"text": "x", "weight": "1"}]}, "$.rubric[0].weight: a weight is a number"),
        ({"prompt": "?", "rubric": [{"text": "x", "weight": -1}]}, "no criterion has a positive weight"),
        ({"prompt": "?", "target": "x", "meta": 3}, "$.meta: `meta` is an object"),
        ({"messages": [], "target": "x"}, "$.messages"),
    ],
)
def test_a_row_that_is_no_task_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        own(row)


def test_any_json_is_a_target_of_the_json_grader() -> None:
    assert own({"prompt": "?", "target": {"a": [True]}, "grader": "json"})["meta"]["target"] == {"a": [True]}


@given(st.lists(st.floats(-100, 100, allow_nan=False), min_size=1, max_size=6))
def test_weights_survive_in_order_and_a_rubric_needs_a_positive_one(weights: list[float]) -> None:
    rubric = [{"criterion": f"c{at}", "weight": weight} for at, weight in enumerate(weights)]

    if max(weights) > 0:
        assert criteria_of(rubric) == rubric
    else:
        with pytest.raises(InputError, match="no criterion has a positive weight"):
            criteria_of(rubric)


# People's own files


def test_a_table_reads_line_breaks_letters_and_json_cells(tmp_path: Path) -> None:
    text = 'id,question,A,B,answer,category\nq1,"Two\nlines?",left,right,B,x\nq2,Plain?,,,42,\n'
    name = written(tmp_path / "t.csv", text)

    first, second = own_tasks(name, PLAIN)

    assert asked(first) == "Two\nlines?\nA) left\nB) right"
    assert first["meta"] == {"target": "B", "category": "x", "grader": "choice", "source": "t.csv"}  # type: ignore[index]
    assert second["meta"] == {"target": "42", "source": "t.csv"}  # type: ignore[index]


def test_the_rubric_of_a_table_is_json_in_a_cell(tmp_path: Path) -> None:
    name = written(tmp_path / "t.tsv", 'prompt\trubric\nDo.\t"[{""criterion"": ""Done."", ""weight"": 2}]"\n')

    [record] = own_tasks(name, PLAIN)

    assert record["meta"]["rubric"] == [{"criterion": "Done.", "weight": 2}]  # type: ignore[index]


@pytest.mark.parametrize("head", ["", "tasks:\n"])
def test_yaml_is_a_list_or_a_mapping_with_tasks(head: str, tmp_path: Path) -> None:
    text = head + "- prompt: Is it?\n  target: yes\n- prompt: When?\n  target: 2024-05-01\n"

    yes, day = own_tasks(written(tmp_path / "t.yaml", text), PLAIN)

    assert yes["meta"]["target"] == "yes"  # type: ignore[index]
    assert day["meta"]["target"] == "2024-05-01"  # type: ignore[index]


@pytest.mark.parametrize("text", ['[{"prompt": "a?", "target": 1}]', '{"tasks": [{"prompt": "a?", "target": 1}]}',
                                  '{"prompt": "a?", "target": 1}\n'])  # fmt: skip
def test_a_json_file_is_a_list_an_object_with_tasks_or_lines(text: str, tmp_path: Path) -> None:
    [record] = own_tasks(written(tmp_path / "t.json", text), PLAIN)

    assert record["meta"] == {"target": 1, "source": "t.json"}  # type: ignore[index]


BROKEN = {
    "t.jsonl": ('{"prompt": "a?", "target": 1}\nnot json\n\n{"prompt": "c?"}\n{"prompt": "d?", "target": 1}\n', [2, 4]),
    "t.csv": ("prompt,target\na?,1\nb?\nc?,1,2\nd?,1\n", [3, 4]),
    "t.yaml": ("- prompt: a?\n  target: 1\n- just text\n- prompt: c?\n- {prompt: d?, target: 1}\n", [3, 4]),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_bad_row_is_told_with_file_line_and_reason_and_the_rest_goes_on(name: str, tmp_path: Path) -> None:
    text, lines = BROKEN[name]
    path = written(tmp_path / name, text)

    done = run(path)

    assert done.returncode == 1
    assert [asked(record) for record in records(done)] == ["a?", "d?"]
    said = [line.split(": ", 2) for line in done.stderr.splitlines()]
    assert [place for _, place, _ in said] == [f"{path}:{line}" for line in lines]
    assert all(len(reason) > 5 for _, _, reason in said)


def test_yaml_that_ends_in_the_middle_says_where() -> None:
    [bad] = [row for row in own_tasks_of_text("- prompt: a?\n  target: [1\n") if isinstance(row, BadRow)]

    assert re.search(r":\d+$", bad.place)
    assert "not YAML" in bad.reason


def own_tasks_of_text(text: str) -> list[Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return list(own_tasks(written(Path(folder) / "t.yaml", text), PLAIN))


def test_bytes_that_are_no_text_are_bad_rows_and_no_crash(tmp_path: Path) -> None:
    for name in ("t.jsonl", "t.csv", "t.yaml", "t.json"):
        path = tmp_path / name
        path.write_bytes(b'prompt,target\n"\xff\xfe",\x00\n')

        assert any(isinstance(row, BadRow) for row in rows_of(str(path)))


def test_an_alias_that_holds_itself_is_a_bad_row(tmp_path: Path) -> None:
    name = written(tmp_path / "t.yaml", "- &a {prompt: a?, target: x, self: *a}\n- {prompt: b?, target: x}\n")

    bad, good = own_tasks(name, PLAIN)

    assert isinstance(bad, BadRow)
    assert asked(good) == "b?"


# Prompts


def test_a_text_cannot_open_another_gap_of_the_prompt() -> None:
    draft = Draft("show {options} and {question}", ["{question}", "b"], {"meta": {"target": "A"}})

    assert asked(record_of(draft, PLAIN)) == "show {options} and {question}\nA) {question}\nB) b"


@given(st.text(min_size=1).filter(str.strip), st.lists(st.text(), min_size=2, max_size=5))
def test_question_and_options_stand_in_the_prompt_unchanged(question: str, options: list[str]) -> None:
    record = record_of(Draft(question, options, {}), PLAIN)

    shown = "\n".join(f"{letter}) {option}" for letter, option in zip("ABCDE", options, strict=False))
    assert asked(record) == f"{question}\n{shown}"


def test_a_typed_prompt_is_a_known_name_or_a_text_with_the_question() -> None:
    known = {"plain": "{question}", "math": "Solve. {question}"}

    assert typed_prompts("math", known).plain == "Solve. {question}"
    assert typed_prompts("Q: {question}", known).plain == "Q: {question}"
    with pytest.raises(UsageError, match="'mth': no such prompt; did you mean 'math'"):
        typed_prompts("mth", known)


def test_a_typed_prompt_without_options_is_refused_where_tasks_have_some() -> None:
    done = run("short", "--category", "choice", "--template", "Q: {question}")

    assert done.returncode == 2
    assert "the template needs {options}" in done.stderr


def test_the_options_of_every_prompt_are_seen_by_the_one_who_reads_the_vote() -> None:
    sets = load_sets()
    for name in ("letter", "choice"):
        prompts = typed_prompts(name, sets.prompts)
        question = asked(record_of(Draft("Which is hot?", ["ice", "fire"], {}), prompts))

        assert vote_keys(["It is fire.\nAnswer: B", "fire"], "choice", question) == ("choice", ["B", "B"])


# Samples and epochs

ids = st.lists(st.text("abcdef0123456789", min_size=1, max_size=4), max_size=40)


def tasks_named(names: list[str], category: str = "x") -> list[Any]:
    return [{"id": name, "messages": [], "meta": {"category": category, "at": at}} for at, name in enumerate(names)]


@given(ids, st.integers(0, 5), st.integers(1, 45), st.integers(1, 45))
def test_a_smaller_sample_is_the_beginning_of_a_larger_one(names: list[str], seed: int, one: int, two: int) -> None:
    tasks = tasks_named(names)
    less, more = sorted((one, two))

    small = list(Chooser(number=less, seed=seed).of(tasks))
    large = list(Chooser(number=more, seed=seed).of(tasks))

    assert small == large[:less]


@given(ids, st.integers(0, 5), st.integers(1, 45))
def test_a_sample_takes_no_task_twice_and_none_that_is_not_there(names: list[str], seed: int, number: int) -> None:
    tasks = tasks_named(names)

    sample = list(Chooser(number=number, seed=seed).of(tasks))

    positions = [task["meta"]["at"] for task in sample]  # type: ignore[index]
    assert len(set(positions)) == len(sample) == min(number, len(tasks))
    assert all(tasks[at] == task for at, task in zip(positions, sample, strict=True))


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=30), st.randoms(), st.integers(1, 30))
def test_a_sample_does_not_depend_on_the_order_of_the_file(names: set[str], random: Any, number: int) -> None:
    one = sorted(names)
    other = random.sample(one, len(one))

    samples = [[t["id"] for t in Chooser(number=number).of(tasks_named(order))] for order in (one, other)]  # type: ignore[index]

    assert samples[0] == samples[1]


def test_another_seed_is_another_sample() -> None:
    tasks = tasks_named([str(n) for n in range(200)])

    samples = {tuple(t["id"] for t in Chooser(number=10, seed=seed).of(tasks)) for seed in range(20)}  # type: ignore[index]

    assert len(samples) == 20


def test_a_sample_favours_no_part_of_the_file() -> None:
    tasks = tasks_named([f"t/{n}" for n in range(100)])

    drawn = Counter(
        task["meta"]["at"] // 25  # type: ignore[index]
        for seed in range(200)
        for task in Chooser(number=10, seed=seed).of(tasks)
    )

    # 2,000 draws in four quarters: 500 each, with a standard deviation of about 19.
    assert all(400 < count < 600 for count in drawn.values())


def test_bad_rows_take_no_place_in_a_sample() -> None:
    mixed = [BadRow("f:1", "why"), *tasks_named(["a", "b"]), BadRow("f:4", "why")]

    chosen = list(Chooser(number=2).of(mixed))

    assert sum(isinstance(each, BadRow) for each in chosen) == 2
    assert len(chosen) == 4


def test_the_cli_takes_the_beginning_of_the_same_sample() -> None:
    small = records(run("short", "-n", "5", "--seed", "3"))
    large = records(run("short", "-n", "9", "--seed", "3"))

    assert small == large[:5]


def test_only_tasks_of_the_category_are_taken_whatever_its_case(tmp_path: Path) -> None:
    done = run("short", "--category", "Choice", "--category", "facts", "--split", "extra")

    assert {(r["meta"]["category"], r["meta"]["split"]) for r in records(done)} == {("choice", "extra")}


def test_a_category_that_no_task_has_names_the_nearest() -> None:
    done = run("short", "--category", "fact")

    assert (done.returncode, done.stdout) == (3, "")
    assert "short: no task has the category 'fact'; did you mean 'facts'?" in done.stderr


@given(st.integers(1, 6))
def test_each_epoch_has_an_id_of_its_own_and_names_the_task(epochs: int) -> None:
    record: Any = {"id": "a", "messages": [], "meta": {"target": 1}}

    made = list(repeated(record, epochs))

    assert [each["id"] for each in made] == ["a", *(f"a#{k}" for k in range(1, epochs))]
    assert [each.get("epoch", 0) for each in made] == list(range(epochs))
    assert made[0] == record if epochs == 1 else {each["meta"]["task"] for each in made} == {"a"}


def test_epochs_pass_the_schema() -> None:
    done = run("code", "-n", "2", "--epochs", "3")

    lines = done.stdout.encode().splitlines()
    assert [jsonl.parse(line).get("epoch", 0) for line in lines] == [0, 1, 2, 0, 1, 2]


# The command


def test_the_list_shows_every_set_with_tasks_licence_source_and_gate() -> None:
    done = run("--list")

    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for name, task_set in load_sets().sets.items():
        assert task_set.source in lines[name]
        assert f"{task_set.tasks:,}" in lines[name]
        assert task_set.licence in lines[name]
        assert ("gated" in lines[name]) == task_set.gated


def test_an_unknown_name_names_the_nearest_set_and_a_path_that_is_not_there_says_so(tmp_path: Path) -> None:
    unknown, path = run("gsm8"), run(str(tmp_path / "none.jsonl"))

    assert (unknown.returncode, path.returncode) == (2, 2)
    assert "no set is called 'gsm8'; did you mean 'gsm8k'?" in unknown.stderr
    assert "none.jsonl: no such file" in path.stderr


def test_no_name_at_all_says_what_to_do() -> None:
    done = run()

    assert done.returncode == 2
    assert "name a set or a file of tasks" in done.stderr


def test_a_second_name_that_is_wrong_stops_before_anything_is_written() -> None:
    done = run("code", "cod")

    assert (done.returncode, done.stdout) == (2, "")


def test_several_names_follow_one_another() -> None:
    done = run("rubric", "code", "-n", "2")

    assert [r["id"].split("/")[0] for r in records(done)] == ["rubric", "rubric", "code", "code"]


def test_an_id_that_comes_again_is_warned_of(tmp_path: Path) -> None:
    row = '{"id": "same", "prompt": "?", "target": 1}\n'

    done = run(written(tmp_path / "t.jsonl", row * 2))

    assert done.returncode == 0
    assert len(records(done)) == 2
    assert "warning: the id 'same' was seen before" in done.stderr


def test_a_file_without_tasks_is_no_success(tmp_path: Path) -> None:
    assert run(written(tmp_path / "t.jsonl", "\n")).returncode == 3


def test_a_set_s_name_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "code", '{"prompt": "mine?", "target": 1}\n')

    named, by_path = run("code", "-n", "1"), run("./code")

    assert records(named)[0]["meta"]["source"] == "fusiontools"
    assert asked(records(by_path)[0]) == "mine?"


def test_the_first_record_leaves_before_the_next_line_comes() -> None:
    code = "from fusiontools.cli.tasks import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        tool.stdin.write('{"prompt": "a?", "target": 1}\n')
        tool.stdin.flush()

        first = json.loads(tool.stdout.readline())

        tool.stdin.close()
        assert tool.wait() == 0
    assert asked(first) == "a?"
    assert first["meta"] == {"target": 1}


def test_a_reader_that_has_gone_is_no_error() -> None:
    code = "from fusiontools.cli.tasks import main; main()"
    line = f"{sys.executable} -c '{code}' short --epochs 40 | head -1; echo ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""


def test_what_is_written_is_read_by_the_next_tool_as_it_is() -> None:
    for line in run("short").stdout.encode().splitlines():
        assert jsonl.write(jsonl.parse(line)) == line + b"\n"


def test_a_set_without_a_usual_split_does_not_exist() -> None:
    for task_set in load_sets().sets.values():
        assert isinstance(task_set, TaskSet)
        assert (task_set.file is None) == bool(task_set.splits)
