"""The house: who may import whom, where each package lives, and what a start costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from parsed import MODULES, PACKAGE, nodes, tree

import fusiontools

#: The rooms, floor by floor from the ground; a module imports from its own room and from the floors below.
FLOORS = ("errors", "record answers", "config", "llm tools", "stages", "runs evaluation", "server", "cli")
#: The one home of each package that is not ours, and of the standard library's database.
HOMES = {
    "click": {"cli.command", "config.click_options"},
    "httpx": {
        *("llm.batches.batch_http", "llm.batches.batch_lines", "llm.http", "llm.transport"),
        "tools.guarded_http",
    },
    "httptools": {"llm.http1"},
    "certifi": {"llm.http1"},
    "orjson": {"record.jsonl", "record.schemas", "record.sections"},
    "re2": {"answers.structured", "llm.sensitive", "runs.agent.file_tools"},
    "json_repair": {"llm.answer_form", "stages.replies"},
    "yaml": {"config.recipe_yaml", "evaluation.tasks.files"},
    "jsonschema": {"record.schemas"},
    "jsonschema_rs": {"record.schemas"},
    "referencing": {"record.schemas"},
    "sqlite3": {"llm.batches.job_file", "llm.journal", "llm.state.sqlite_purses", "llm.state.sqlite_store"},
    "redis": {"llm.state.redis_store"},
    "psycopg": {"llm.state.postgres_store"},
    "xllamacpp": {"llm.local"},
    "genai_prices": {"llm.prices"},
    "rich": {"cli.code_view", "cli.markdown", "cli.progress", "cli.region", "cli.table", "cli.view"},
    "markdown_it": {"cli.markdown"},
    "prompt_toolkit": {"cli.chat_input"},
    "dotenv": {"cli.command"},
    "keyring": {"config.api_keys"},
    "uvloop": {"cli.filter"},
    "starlette": {"server.middleware", "server.page_routes", "server.response_routes", "server.routes", "server.run"},
    "cachetools": {"server.answer_cache", "server.kept_values"},
    "uvicorn": {"server.request", "server.run"},
    "prometheus_client": {"server.metrics"},
    "huggingface_hub": {"evaluation.tasks.datasets"},
    "pyarrow": {"evaluation.tasks.datasets", "runs.cluster.output_folder", "runs.cluster.record_files"},
    "ray": {"runs.cluster.ray_run"},
    "matplotlib": {"evaluation.report.plot"},
    "numpy": {"evaluation.report.statistics", "runs.cluster.record_blocks"},
    "ddgs": {"tools.search_engines"},
    "mcp": {"tools.mcp", "runs.mcp_server", "server.mcp_route"},
    "mcp_types": {"tools.mcp", "runs.mcp_server"},
    "httpx2": {"tools.mcp"},
    "sse_starlette": {"server.mcp_route"},
    "protego": {"tools.web_fetch"},
    "pypdf": {"tools.page_text"},
    "trafilatura": {"tools.page_text"},
    "lxml": {"tools.page_text"},
    "opentelemetry": {"llm.spans", "llm.traces"},
}
#: What classes of values are made of, everywhere.
VALUES = "msgspec"
#: What all stages stand on: the outside world, and how a judge is asked.
SHARED = {
    f"stages.{name}" for name in ("runtime", "verdicts", "replies", "pairwise", "prompts", "analysis", "tool_loop")
} | {"stages.ballot", "stages.threshold", "stages.claims"}
#: What `--help` can do without.
HEAVY = {
    "asyncio",
    "httpx",
    "httptools",
    "msgspec",
    "orjson",
    "yaml",
    "jsonschema",
    "jsonschema_rs",
    "sqlite3",
    "rich",
    "uvloop",
    "starlette",
    "uvicorn",
    "prometheus_client",
    "re2",
    "ddgs",
    "mcp",
    "pydantic",
    "trafilatura",
    "lxml",
    "pypdf",
    "keyring",
    "ray",
    "pyarrow",
    "numpy",
    "pandas",
    "opentelemetry",
}


def imports(module: str) -> Iterator[str]:
    """Yield every module that this one imports, anywhere in it."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write the whole name"
            yield from modules_of(node)


def modules_of(node: ast.ImportFrom) -> Iterator[str]:
    for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        yield whole if whole.removeprefix("fusiontools.") in MODULES else str(node.module)


def ours(module: str) -> set[str]:
    found = {name.removeprefix("fusiontools.") for name in imports(module) if name.startswith("fusiontools.")}
    return {name for name in found if name in MODULES}


def floor(module: str) -> int:
    [found] = [i for i, rooms in enumerate(FLOORS) if module.split(".")[0] in rooms.split()]
    return found


def parts() -> list[str]:
    return [module for module in MODULES if not module.endswith("__init__") and not module.startswith("data.")]


def test_a_room_imports_lower_rooms_only_and_nobody_the_face() -> None:
    for module in parts():
        room = module.split(".")[0]
        for other in ours(module):
            assert other.split(".")[0] == room or floor(other) < floor(module), f"{module} imports {other}"
        assert "fusiontools" not in imports(module), f"{module} imports the face of the package"


def test_the_hall_is_small() -> None:
    rooms = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "errors.py", "py.typed", "data", "__pycache__"}

    assert len(rooms) <= 10
    assert {room.removesuffix(".py") for room in rooms} == {room for rooms in FLOORS for room in rooms.split()} - {
        "errors"
    }


def test_each_room_says_in_a_sentence_what_it_is() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module != "__init__":
            assert (ast.get_docstring(tree(module)) or "").split("\n")[0].endswith((".", "?")), module


def test_one_name_has_one_meaning() -> None:
    classes = [node.name for module in parts() for node in tree(module).body if isinstance(node, ast.ClassDef)]
    # A tool is called as what it runs: `cli/judge.py` parses and prints, `stages/judge.py` compares.
    files = [module.rpartition(".")[2] for module in parts() if not module.startswith("cli.")]

    assert [name for name, count in Counter(classes).items() if count > 1] == []
    assert [name for name, count in Counter(files).items() if count > 1] == []


def test_stages_speak_through_the_record_only() -> None:
    for module in parts():
        if module.startswith("stages.") and module not in SHARED:
            own = module.split("_")[0]
            others = {other for other in ours(module) if other.startswith("stages.")} - SHARED
            assert {other for other in others if not other.startswith(f"{own}_")} == set(), module


def test_models_know_no_comparison() -> None:
    for module in parts():
        assert not (module.startswith("llm.") and ours(module) & {"answers.lexical"}), module


def test_nothing_imports_itself_in_a_circle() -> None:
    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path, module])
        if module not in done:
            for other in ours(module):
                visit(other, (*path, module))
            done.add(module)

    done: set[str] = set()
    for module in parts():
        visit(module, ())


def test_a_walk_from_the_top_to_the_ground_is_short() -> None:
    """At most 12 modules import one another in a row at their start; what a function imports is left out."""

    @cache
    def depth(module: str) -> int:
        at_start = [node for node in tree(module).body if isinstance(node, ast.ImportFrom)]
        below = {name.removeprefix("fusiontools.") for node in at_start for name in modules_of(node)} & MODULES.keys()
        return 1 + max(map(depth, below), default=0)

    assert max(map(depth, parts())) <= 12


def test_each_package_has_one_home() -> None:
    homes: dict[str, set[str]] = {}
    for module in parts():
        for name in imports(module):
            package = name.split(".")[0]
            if package not in {"fusiontools", VALUES} and (package not in sys.stdlib_module_names or package in HOMES):
                homes.setdefault(package, set()).add(module)

    assert homes == HOMES


def test_every_dependency_is_used_and_every_package_is_a_dependency() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name != "all"]
    wanted = [*project["dependencies"], *(text for extra in extras for text in extra)]
    names = {text.split(">")[0].split(";")[0].split("[")[0].strip() for text in wanted}
    imported = {"google-re2": "re2", "python-dotenv": "dotenv", "pyyaml": "yaml"}
    imported |= {name: "opentelemetry" for name in names if name.startswith("opentelemetry-")}

    declared = {imported.get(name, name.replace("-", "_")) for name in names}

    brought_along = {"referencing", "sqlite3", "markdown_it", "lxml", "mcp_types", "httpx2", "sse_starlette"}
    imported_by_others = {"lxml_html_clean"}
    assert declared == HOMES.keys() - brought_along | imported_by_others | {VALUES}


def test_nothing_prints() -> None:
    calls = [(module, node.func) for module in parts() for node in nodes(module) if isinstance(node, ast.Call)]

    # The fetcher of weights is a program of its own: `python -m fusiontools.llm.weights`.
    assert {module for module, called in calls if isinstance(called, ast.Name) and called.id == "print"} == {
        "llm.weights"
    }


def test_only_the_outermost_loop_catches_everything() -> None:
    def catches_all(handler: ast.ExceptHandler) -> bool:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(c is None or (isinstance(c, ast.Name) and c.id in ("Exception", "BaseException")) for c in caught)

    found = {
        module
        for module in parts()
        for node in nodes(module)
        if isinstance(node, ast.ExceptHandler) and catches_all(node)
    }

    # Keyrings are others' plug-ins, with exceptions of their own; Ray waits for ever, or ends, where its stage raises.
    # What fails in a callback of the loop (`server.jobs`) is handed to the task that waits; what fails in a commit
    # (`llm.journal`) is said, and who waits for it has an answer that is paid for.
    assert found <= {
        "runs.cluster.chain_actor",
        *("cli.ask_run", "cli.command", "cli.filter", "llm.http1", "llm.journal", "llm.local", "runs.mcp_server"),
        *("server.jobs", "server.middleware", "server.streaming"),
        "config.api_keys",
        "evaluation.sandbox.protocol",
    }


def test_only_one_place_waits_and_tries_again() -> None:
    sleepers = {
        module
        for module in parts()
        for node in nodes(module)
        if isinstance(node, ast.Attribute) and node.attr == "sleep"
    }

    assert "llm.retry" in sleepers
    # Opening the journal waits for other processes, by itself and in milliseconds; a search for its engine's turn;
    # money for what others, who share it, have done; a call for another process that buys it. Inflating a body lets
    # others in between, and waits for nothing.
    batches = {f"llm.batches.{name}" for name in ("desk", "dispatch", "job_file", "job_store")}  # for a job
    batches |= {"runs.batch_rounds"}
    state = {f"llm.state.{name}" for name in ("flights", "blocks", "remote_journal")}
    assert sleepers <= {"llm.retry", "llm.journal", "llm.purses", "tools.search_limits", "llm.http"} | state | batches


def test_no_module_is_called_by_a_name_that_says_nothing() -> None:
    assert not {module.split(".")[-1] for module in parts()} & {"utils", "helpers", "common", "manager", "misc", "base"}


# The library


def exported() -> dict[str, str]:
    return {name: home for home, names in fusiontools._HOMES.items() for name in names}


def test_the_library_loads_nothing_until_it_is_used() -> None:
    code = "import sys, fusiontools; print([m for m in sys.modules if m.startswith('fusiontools.')])"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout == "[]\n"


def test_the_library_exports_what_it_says() -> None:
    assert fusiontools.__all__ == sorted(exported())
    for name, home in exported().items():
        assert getattr(fusiontools, name) is getattr(import_module(home), name)


def test_the_type_checker_sees_what_the_program_does() -> None:
    [guarded] = [node for node in ast.parse(Path(fusiontools.__file__).read_text()).body if isinstance(node, ast.If)]
    seen = {alias.name: str(node.module) for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}  # fmt: skip  # noqa: E501

    assert seen == exported()


def test_a_name_that_is_not_exported_is_an_error_of_the_usual_kind() -> None:
    with pytest.raises(AttributeError, match="module 'fusiontools' has no attribute 'fusee'"):
        fusiontools.fusee  # noqa: B018


# Starting, and answering


@pytest.mark.slow
def test_a_warm_chat_request_runs_in_at_most_25_files() -> None:
    counted = subprocess.run(
        [sys.executable, str(PACKAGE.parent / "tests" / "bench" / "touched.py")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(counted.stdout.split()[0]) <= 25, counted.stdout


def scripts() -> dict[str, str]:
    return tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize(
    ("tool", "option"), [*((tool, "--help") for tool in sorted(scripts())), ("fuse-panel", "--version")]
)
def test_a_tool_that_only_speaks_of_itself_imports_nothing_heavy(tool: str, option: str, tmp_path: Path) -> None:
    loaded = loaded_by(tool, option, cwd=tmp_path)

    assert "click" in loaded
    assert not loaded & HEAVY


def test_a_shell_that_starts_waits_for_no_library(tmp_path: Path) -> None:
    loaded = loaded_by("fuse-ask", "--completion", "bash", cwd=tmp_path)

    assert not loaded & (HEAVY | {"click", "dataclasses", "importlib.metadata"})


@pytest.mark.parametrize("transport", ["", "httpx"])
def test_a_tool_in_a_pipe_loads_nothing_that_draws(transport: str, env: dict[str, str], tmp_path: Path) -> None:
    env = {**env, "FUSION_TRANSPORT": transport}
    loaded = loaded_by("fuse-panel", "-q", cwd=tmp_path, env=env, question="Why is the sky blue?")

    assert "httptools" in loaded
    assert ("httpx" in loaded) == (transport == "httpx")
    assert loaded.isdisjoint(("rich", "pygments"))


def loaded_by(tool: str, *options: str, cwd: Path, env: dict[str, str] | None = None, question: str = "") -> set[str]:
    """Return the packages that a tool has loaded by its end."""
    code = f"from {scripts()[tool].partition(':')[0]} import main; main()"
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *options],
        input=question, capture_output=True, text=True, check=True, cwd=cwd, env=env,
    )  # fmt: skip
    return {line.rpartition("|")[2].strip().split(".")[0] for line in shown.stderr.splitlines()}
