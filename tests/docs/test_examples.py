"""The examples run: with the stand-in in the place of every endpoint, and one of them on the embedded model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workdir import Run, Upstream

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _jq() -> None:
    if not shutil.which("jq"):
        pytest.skip("jq is not installed: it is the reader's tool")


def run_script(script: str, cwd: Path, env: dict[str, str]) -> str:
    """Return what the example prints; it must succeed, and what it writes goes into a folder of its own."""
    command = ["sh", str(EXAMPLES / script)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not any(cwd.glob("*.json*"))
    return done.stdout


def own_recipe(folder: Path, upstream: Upstream) -> str:
    """Write a recipe of one's own into another folder; its endpoint is known to nobody who is not given it."""
    (folder / "my recipes").mkdir()
    path = folder / "my recipes/mine.yaml"
    path.write_text(
        f"endpoint: lab\nendpoints: {{lab: {{base_url: '{upstream.url}'}}}}\n"
        "panel: [fake/a, fake/b]\njudge: fake/judge\nsynth: fake/s\n"
    )
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.sh")))
def test_script_runs_with_a_recipe_of_ones_own_and_another_judge(
    script: str, env: dict[str, str], tmp_path: Path, upstream: Upstream
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    more = {"RECIPE": own_recipe(tmp_path, upstream), "JUDGE": "--method model -m fake/other@lab"}
    del env["FUSION_BASE_URL"], env["FUSION_API_KEY"]

    out = run_script(script, work, {**env, **more})

    asked_of = upstream.stats()["per_model"]
    assert out.strip()
    assert asked_of["fake/a"] > 0
    assert asked_of["fake/a"] == asked_of["fake/b"]
    if script != "one_panel_many_answers.sh":
        assert asked_of["fake/s"] > 0
    if script == "replay_with_another_judge.sh":
        assert asked_of["fake/other"] == 1
    if script == "openai_batch.sh":
        asked = [json.loads(line)["custom_id"] for line in (EXAMPLES / "openai_batch.jsonl").read_text().splitlines()]
        assert [json.loads(line)["custom_id"] for line in out.splitlines()] == asked


@pytest.mark.slow
def test_demo_runs_on_the_embedded_model(env: dict[str, str], tmp_path: Path) -> None:
    alone = {name: value for name, value in env.items() if name not in ("FUSION_BASE_URL", "FUSION_API_KEY")}

    out = run_script("demo.sh", tmp_path, alone)

    assert re.search(r"── \S+#0 ─.*── analysis .*── answer ", out, re.DOTALL)


def test_demo_asks_the_question_as_it_was_typed(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    typed = r'{"is this a question?"} 5$ \n'

    run_script("demo.sh", tmp_path, {**env, "RECIPE": "budget", "Q": typed})

    assert upstream.bodies("google/gemini-3-flash")[0]["messages"][-1]["content"] == typed


@pytest.mark.slow
def test_batch_resumes_and_judges_again_without_asking_the_panel_again(
    env: dict[str, str], tmp_path: Path, upstream: Upstream
) -> None:
    shutil.copytree(EXAMPLES / "batch", tmp_path / "batch")

    def make(*words: str, recipe: str = "budget") -> str:
        command = ["make", f"RECIPE={recipe}", *words]
        return subprocess.run(
            command, cwd=tmp_path / "batch", env=env, check=True, capture_output=True, text=True
        ).stdout

    make()
    first, asked = (tmp_path / "batch/answers.txt").read_text(), upstream.stats()["per_model"]
    make("clean")
    make()
    total = make("cost").splitlines()[-1].split()
    make("JUDGE=-m openai/gpt-5.5@openrouter", "-W", "panel.jsonl")

    assert total[1] == total[3], "every call was replayed"
    assert first
    assert upstream.stats()["per_model"]["google/gemini-3-flash"] == asked["google/gemini-3-flash"]
    assert upstream.stats()["per_model"]["openai/gpt-5.5"] == 3
    make("clean")
    make(recipe=own_recipe(tmp_path, upstream))
    assert upstream.stats()["per_model"]["fake/s"] == 3


def test_library_example_runs(run: Run) -> None:
    done = run([sys.executable, str(EXAMPLES / "library.py"), "budget"])

    assert done.status == 0, done.err
    assert len(done.text.splitlines()) == 2


def test_my_recipe_answers(run: Run, tmp_path: Path) -> None:
    # The stand-in has no list price, so a limit could not be held.
    text = re.sub(r"^  max_cost_usd: .*$", "", (EXAMPLES / "my_recipe.yaml").read_text(), flags=re.MULTILINE)
    (tmp_path / "my.yaml").write_text(text)

    done = run("echo q | fuse-panel -c my.yaml | fuse-judge -c my.yaml | fuse-synth -c my.yaml")

    (record,) = done.records
    assert [r["member"] for r in record["panel"]] == ["qwen", "qwen", "careful", "kimi"]
    assert record["answer"]["by"] == "synth"


def test_examples_are_all_in_the_index() -> None:
    linked: set[str] = set()
    for index in EXAMPLES.rglob("README.md"):
        links = re.findall(r"\]\(([^):]+)\)", index.read_text())
        linked |= {os.path.normpath(index.parent.relative_to(EXAMPLES) / link) for link in links}

    files = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.is_file()}
    files = {f for f in files if "__pycache__" not in f and f != "README.md"}
    assert files == {link for link in linked if not link.startswith("..")}


OWN = """\
endpoint: lab
endpoints: {{lab: {{base_url: "{url}", free: true}}}}
panel: {{members: [fake/a, fake/b, fake/c]}}
judge: fake/judge
synth: fake/s
"""
RUNS = [
    *(f"sh {path.relative_to(EXAMPLES)}" for path in sorted(EXAMPLES.glob("*.sh"))),
    "sh eval/run.sh",
    "sh until/run.sh",
    "make",
]


@pytest.mark.slow
@pytest.mark.parametrize("command", [*RUNS, "python library.py"])
def test_every_script_runs_with_a_recipe_of_ones_own(
    command: str, env: dict[str, str], tmp_path: Path, upstream: Upstream
) -> None:
    # Nothing but the recipe says where its endpoint is.
    alone = {name: value for name, value in env.items() if name not in ("FUSION_BASE_URL", "FUSION_API_KEY")}
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(OWN.format(url=upstream.url))
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    program, *words = command.split()
    if program == "python":
        words = [*words, str(recipe)]
    folder = tmp_path / "examples" / ("batch" if program == "make" else "")
    more = {"RECIPE": str(recipe), "JUDGE": "-m fake/judge2+judge", "N": "2"}

    done = subprocess.run(
        [sys.executable if program == "python" else program, *words],
        cwd=folder, env={**alone, **more}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "not known here" not in done.stderr
    assert set(upstream.stats()["per_model"]) >= {"fake/a", "fake/b", "fake/c"}
    assert not {name for name in upstream.stats()["per_model"] if not name.startswith("fake/")}
