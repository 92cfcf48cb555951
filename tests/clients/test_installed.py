"""Clients as people install them, against a real `fuse-serve`.

Each runs twice: before a server as it is, and before one that wants a key and keeps its streams open by events.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from clients.serving import ANSWER, EDITED, EXAMPLES, HERE, Server, run_client, start_server, start_upstream
from workdir import Upstream

pytestmark = pytest.mark.slow

if "FUSION_CLIENTS" not in os.environ:
    pytest.skip("`make test-clients` installs what these tests need", allow_module_level=True)

INSTALLED = Path(os.environ["FUSION_CLIENTS"])
NODE = INSTALLED / "npm" / "node_modules"
#: How the second server differs: it must say something between any two pieces of a model that takes its time.
BUSY = ("--keepalive", "chunk", "--keepalive-interval", "0.01", "--progress", "reasoning")
QUESTION = "What do my notes say?"
NOTES = "The password is swordfish."
FORM = "city='Canberra'"
CITIES = "['Canberra', 'Hobart']"
FAILED = "400"
UNBOXED = ("--sandbox", "danger-full-access")
#: Nothing but the server is asked.
OFFLINE = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "PI_OFFLINE": "1",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
}


@pytest.fixture(scope="module")
def upstream_process() -> Iterator[Upstream]:
    with start_upstream("--latency", "0.05") as upstream:
        yield upstream


@pytest.fixture(scope="module", params=["as it is", "busy and locked"])
def server(
    request: pytest.FixtureRequest, upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    options, key = (BUSY, "rightful-key") if request.param == "busy and locked" else ((), "")
    with start_server(upstream_process, tmp_path_factory.mktemp("server"), *options, key=key) as server:
        yield server


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Return a directory that an agent may work in, with the notes that it is asked for."""
    (tmp_path / "notes.txt").write_text(NOTES)
    return tmp_path


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Return a file to edit, in a home in which aider finds its list of prices and so fetches none."""
    prices = tmp_path / ".aider" / "caches" / "model_prices_and_context_window.json"
    prices.parent.mkdir(parents=True)
    prices.write_text("{}")
    (tmp_path / "shapes.py").write_text("def area(a, b):\n    return a * b\n")
    return tmp_path / "shapes.py"


def run_installed(server: Server, directory: Path, environment: str, *command: str) -> CompletedProcess[str]:
    """Run a command with what was installed for it before all else on the PATH."""
    where = NODE / ".bin" if environment == "npm" else INSTALLED / environment / "bin"
    path = os.pathsep.join([str(where), str(NODE / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return run_client(server, directory, *command, PATH=path, **OFFLINE)


def lines_of(done: CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


# --- Libraries ---


def test_the_oldest_openai_sdk_gets_what_the_newest_gets(tmp_path: Path) -> None:
    tests = [str(HERE.parent / "slow" / "test_clients.py"), "-k", "openai", "-p", "no:cacheprovider"]
    nowhere = Server("", None)
    # What the tests share reads parts of the package, which is not installed there.
    command = ["env", f"PYTHONPATH={HERE.parent.parent}", "python", "-m", "pytest", *tests]

    done = run_installed(nowhere, tmp_path, "openai-1.40", *command)

    assert done.returncode == 0, done.stdout


def test_langchain_gets_answers(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    done = run_installed(server, tmp_path, "langchain", "python", str(EXAMPLES / "langchain_chat.py"))

    assert lines_of(done) == [ANSWER, ANSWER, "city='Canberra'"]


def test_langchain_gets_tool_calls_and_buys_no_failed_panel_again(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    done = run_installed(server, tmp_path, "langchain", "python", str(HERE / "programs" / "langchain_tools.py"))

    assert lines_of(done) == [CITIES, CITIES, FAILED]
    assert upstream.stats()["per_model"]["fake/a+empty"] == 1


def test_litellm_gets_answers(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    done = run_installed(server, tmp_path, "litellm", "python", str(EXAMPLES / "litellm_sdk.py"))

    assert lines_of(done) == [ANSWER, ANSWER]


def test_litellm_gets_tool_calls_and_buys_no_failed_panel_again(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    done = run_installed(server, tmp_path, "litellm", "python", str(HERE / "programs" / "litellm_tools.py"))

    assert lines_of(done) == [CITIES, CITIES, FAILED]
    assert upstream.stats()["per_model"]["fake/a+empty"] == 1


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
def test_llm_gets_an_answer(server: Server, upstream: Upstream, tmp_path: Path, options: list[str]) -> None:
    done = run_installed(server, tmp_path, "llm", "sh", str(EXAMPLES / "llm.sh"), *options, QUESTION)

    assert lines_of(done) == [ANSWER]


def test_llm_gets_an_answer_in_a_form(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    done = run_installed(server, tmp_path, "llm", "sh", str(EXAMPLES / "llm.sh"), "--schema", "city, country", QUESTION)

    assert lines_of(done) == ['{"city": "Canberra"}']


def test_llm_calls_a_tool(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    function = "def weather(city: str) -> str:\n    return f'Sun in {city}.'"

    done = run_installed(server, tmp_path, "llm", "sh", str(EXAMPLES / "llm.sh"), "--functions", function, QUESTION)

    assert lines_of(done) == [ANSWER]
    assert given_back(upstream) == ["Sun in Canberra."]


def test_openai_for_javascript_gets_answers_and_calls_a_tool(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(NODE)
    shutil.copy(EXAMPLES / "openai_sdk.mjs", tmp_path)

    done = run_installed(server, tmp_path, "npm", "node", "openai_sdk.mjs")

    assert lines_of(done) == [ANSWER, ANSWER, ANSWER]
    assert given_back(upstream) == ["The capital of Australia is Canberra."]


#: By example: where its client is installed, and what it prints.
EXAMPLE_LINES: dict[str, tuple[str, list[str]]] = {
    "openai_sdk.py": ("openai", [ANSWER, ANSWER, FORM]),
    "responses_background.py": ("openai", [ANSWER, ANSWER]),
    "anthropic_sdk.py": ("anthropic", [ANSWER, ANSWER]),
    "langchain_anthropic_chat.py": ("anthropic", [ANSWER, ANSWER]),
    "instructor_form.py": ("instructor", [FORM]),
    "llamaindex_chat.py": ("llama-index", [ANSWER] * 4),
}
#: As above; these call a tool, so that its answer reaches the models.
TOOL_LINES: dict[str, tuple[str, list[str]]] = {
    "anthropic_tools.py": ("anthropic", [ANSWER]),
    "openai_agents.py": ("openai-agents", [ANSWER] * 4),
    "pydanticai_agent.py": ("pydantic-ai", [ANSWER, FORM]),
    "smolagents_agent.py": ("smolagents", [ANSWER]),
    "inspect_task.py": ("inspect", [ANSWER, "1.0"]),
}
SAID_BY_TOOL = "The capital of Australia is Canberra."


@pytest.mark.parametrize("example", EXAMPLE_LINES)
def test_an_example_gets_its_answers(example: str, server: Server, upstream: Upstream, tmp_path: Path) -> None:
    environment, expected = EXAMPLE_LINES[example]

    done = run_installed(server, tmp_path, environment, "python", str(EXAMPLES / example))

    assert lines_of(done) == expected


@pytest.mark.parametrize("example", TOOL_LINES)
def test_an_example_calls_a_tool(example: str, server: Server, upstream: Upstream, tmp_path: Path) -> None:
    environment, expected = TOOL_LINES[example]

    done = run_installed(server, tmp_path, environment, "python", str(EXAMPLES / example))

    assert lines_of(done)[-len(expected) :] == expected
    assert any(SAID_BY_TOOL in str(body["messages"]) for body in upstream.bodies())


@pytest.mark.parametrize("example", ["openai_sdk.py", "responses_background.py"])
def test_an_older_openai_sdk_gets_the_same(example: str, server: Server, upstream: Upstream, tmp_path: Path) -> None:
    done = run_installed(server, tmp_path, "openai-2", "python", str(EXAMPLES / example))

    assert lines_of(done) == EXAMPLE_LINES[example][1]


@pytest.mark.parametrize(("example", "answers"), [("ai_sdk.mjs", 4), ("anthropic_sdk.mjs", 3)])
def test_javascript_gets_answers_and_calls_a_tool(
    example: str, answers: int, server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(NODE)
    shutil.copy(EXAMPLES / example, tmp_path)

    done = run_installed(server, tmp_path, "npm", "node", example)

    assert lines_of(done) == [ANSWER] * answers
    assert any(SAID_BY_TOOL in str(body["messages"]) for body in upstream.bodies())


def test_dspy_reads_its_fields(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    command = ["env", "FUSION_MODEL=fusion/fields", "python", str(EXAMPLES / "dspy_predict.py")]

    done = run_installed(server, tmp_path, "dspy", *command)

    assert lines_of(done) == [ANSWER]


def test_promptfoo_passes_its_test(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    options = ["--no-cache", "-o", "out.json"]

    done = run_installed(server, tmp_path, "npm", "promptfoo", "eval", "-c", str(EXAMPLES / "promptfoo.yaml"), *options)

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["results"]["stats"]["successes"] == 1


def test_the_evaluation_harness_grades_a_task(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    done = run_installed(server, tmp_path, "lm-eval", "sh", str(EXAMPLES / "lm_eval.sh"))

    [score] = [line for line in lines_of(done) if line.startswith("|capitals|")]
    assert [cell.strip() for cell in score.split("|")][5:9] == ["exact_match", "↑", "1", "±"]


def test_a_litellm_proxy_hands_answers_on(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    done = run_installed(server, tmp_path, "litellm-proxy", "python", str(HERE / "programs" / "litellm_proxy.py"))

    assert lines_of(done)[-2:] == [ANSWER, ANSWER]


def given_back(upstream: Upstream) -> list[str]:
    """Return what tools answered, as the model that was asked last has read it."""
    return [message["content"] for message in upstream.bodies()[-1]["messages"] if message["role"] == "tool"]


# --- Agents ---


def agents(model: str) -> dict[str, list[str]]:
    """Return how each agent is asked one thing of this model without a person."""
    pi, claude, codex = (str(EXAMPLES / name) for name in ("pi.mjs", "claude_code.sh", "codex.sh"))
    opencode, cn = (str(EXAMPLES / name) for name in ("opencode.sh", "continue.sh"))
    return {
        "opencode": ["env", f"FUSION_MODEL={model}", "sh", opencode, "run", QUESTION],
        "cn": ["env", f"FUSION_MODEL={model}", "sh", cn, "--auto", "-p", QUESTION],
        "pi": ["pi", "-e", pi, "--model", f"fusion/{model}", "--no-session", "-p", QUESTION],
        "claude": ["sh", claude, "--model", model, "--allowedTools", "Bash(cat *)", "-p", QUESTION],
        # Its own sandbox needs a kernel that lets users make namespaces; the one command is ours, and reads a file.
        "codex": ["sh", codex, "exec", "-m", model, "--skip-git-repo-check", *UNBOXED, QUESTION],
    }


@pytest.mark.parametrize("agent", agents("fusion"))
def test_an_agent_calls_a_tool_and_answers(agent: str, server: Server, upstream: Upstream, notes: Path) -> None:
    done = run_installed(server, notes, "npm", *agents("fusion")[agent])

    assert lines_of(done)[-1] == ANSWER
    [given] = given_back(upstream)
    assert NOTES in given


@pytest.mark.parametrize("agent", agents("fusion"))
def test_an_agent_buys_no_failed_panel_again(agent: str, server: Server, upstream: Upstream, notes: Path) -> None:
    done = run_installed(server, notes, "npm", *agents("fusion/fails")[agent])

    assert done.returncode != 0
    assert upstream.stats()["per_model"]["fake/a+empty"] == 1


def aider(model: str) -> list[str]:
    """Return how aider is asked to edit `shapes.py`."""
    quiet = ["--yes-always", "--no-git", "--no-check-update", "--analytics-disable", "--no-detect-urls", "--no-pretty"]
    return [
        "sh",
        str(EXAMPLES / "aider.sh"),
        "--model",
        f"openai/{model}",
        *quiet,
        "--message",
        "Say surface.",
        "shapes.py",
    ]


def test_aider_edits_a_file(server: Server, upstream: Upstream, shapes: Path) -> None:
    done = run_installed(server, shapes.parent, "aider", *aider("fusion/edits"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert shapes.read_text() == EDITED
