"""Documents are tests: what the README shows is run, and what it lists is compared with the code.

How a fenced block of the README is taken:

    ```sh            run as a script, in one directory for all such blocks and in their order; must succeed
    ```sh endpoint   run in a directory of its own, with the stand-in in the place of every endpoint
    ```sh install    not run; its lines must be known: `make` targets, and what `tests/test_wheel.py` installs
    ```console       `$ ` lines are typed on a terminal, in the directory of the ```sh blocks; what comes must be what
                     stands there, but for seconds
    ```console live  the same, but what comes is a model's words, and is not compared
    ```text          begins with `Usage: TOOL`: that tool's help at 100 columns

`python tests/test_docs.py` writes outputs and helps into the README anew; `git diff` is the review.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workdir import Run, Upstream

from fusiontools import errors
from fusiontools.config import recipe, recipe_yaml
from fusiontools.config.chain_syntax import parse
from fusiontools.config.models import ENDPOINTS, Endpoint, Model
from fusiontools.config.stage_table import STAGES, FewShot, LimitOptions
from fusiontools.config.templates import template_names
from fusiontools.errors import InputError
from fusiontools.record import schemas
from fusiontools.record.sections import DERIVED

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples"
NAMES = "ask route panel judge synth vote pick cost diff"
TOOLS = tuple(f"fuse-{name}" for name in NAMES.split())
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Sections of the record whose tools are not written yet.
UNMADE: set[str] = set()
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}


@dataclass(frozen=True)
class Block:
    """A fenced block of the README."""

    language: str
    mark: str | None
    text: str
    span: tuple[int, int]
    line: int

    @property
    def commands(self) -> list[str]:
        """The commands of a `console` block: `$ ` begins one, `> ` goes on with it."""
        lines = [line for line in self.text.splitlines() if line.startswith(("$ ", "> "))]
        return re.sub(r"\n> ", "\n", "\n".join(lines)).removeprefix("$ ").split("\n$ ") if lines else []


def blocks(*kinds: tuple[str, str | None]) -> list[Block]:
    text = README.read_text()
    found = [
        Block(m[1], m[2], m[3], (m.start(3), m.end(3)), text.count("\n", 0, m.start()) + 1)
        for m in BLOCK.finditer(text)
    ]
    return [block for block in found if not kinds or (block.language, block.mark) in kinds]


def cases(*kinds: tuple[str, str | None]) -> Any:
    return pytest.mark.parametrize("block", blocks(*kinds), ids=lambda block: f"line {block.line}")


def section(title: str) -> str:
    """Return the README's text under this heading, down to the next one of the same depth."""
    text = README.read_text()
    heading = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert heading, f"the README has no section {title!r}"
    rest = text[heading.end() :]
    end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(title: str) -> list[list[str]]:
    """Return the cells of the first table in this section, without its heading."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def code(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def world(home: Path, upstream: Upstream | None) -> dict[str, str]:
    """Return all that a command may see of the world; without an upstream there is no key and no endpoint."""
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "HOME": str(home),
        "XDG_CACHE_HOME": cache,
        **({"FUSION_BASE_URL": upstream.url, "FUSION_API_KEY": "test-key"} if upstream else {}),
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
    }


def typed(command: str, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """Return status and screen of a command typed on a terminal of 100 columns, whose keyboard nobody touches."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=cwd, env=env
    ) as process:
        os.close(theirs)
        pieces = []
        with contextlib.suppress(OSError):  # how a terminal says that the other end is closed
            while piece := os.read(ours, 1 << 16):
                pieces.append(piece)
        os.close(ours)
    text = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", b"".join(pieces).decode())  # colours: older jq does not know NO_COLOR
    lines = text.replace("\r\n", "\n").split("\n")
    return process.returncode, "\n".join(line.rpartition("\r")[2].rstrip() for line in lines)


@dataclass(frozen=True)
class Shown:
    """What running a block gave."""

    status: int
    text: str


def run_block(block: Block, cwd: Path, env: dict[str, str]) -> Shown:
    if block.language == "sh":
        done = subprocess.run(["bash", "-ec", block.text], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
        return Shown(done.returncode, done.stdout + done.stderr)
    worst, text = 0, ""
    for command in block.commands:
        status, out = typed(f"set -o pipefail; {command}", cwd, env)
        worst = worst or status
        text += f"$ {command}\n".replace("\n", "\n> ").removesuffix("> ") + out
    return Shown(worst, text)


def tour(folder: Path) -> dict[int, Shown]:
    """Run the blocks that a reader could type, one after the other in one directory; by line."""
    (folder / "work").mkdir()
    wanted = blocks(("sh", None), ("console", None), ("console", "live"))
    return {block.line: run_block(block, folder / "work", world(folder, None)) for block in wanted}


def steady(text: str) -> str:
    """Return the text without what differs from run to run."""
    return re.sub(r"\d+\.\d+ s", "… s", text)


def skip_without_jq(text: str) -> None:
    """Leave out what types `jq` where it is not installed: the tools do without it, so `make test` must too."""
    if re.search(r"\bjq\b", text) and not shutil.which("jq"):
        pytest.skip("jq is not installed")  # it is the reader's tool, not ours: all that needs none runs


def help_of(tool: str) -> str:
    env = {**os.environ, "COLUMNS": "100"}
    return subprocess.run([tool_path(tool), "--help"], env=env, capture_output=True, text=True, check=True).stdout


def tool_path(tool: str) -> str:
    return str(Path(sys.executable).with_name(tool))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Shown]:
    return tour(tmp_path_factory.mktemp("tour"))


# --- What the README shows ---


@cases(("sh", None), ("console", None), ("console", "live"))
def test_what_the_readme_types_succeeds(block: Block, shown: dict[int, Shown]) -> None:
    skip_without_jq(block.text)
    assert shown[block.line].status == 0, shown[block.line].text


@cases(("console", None))
def test_what_the_readme_shows_is_what_comes(block: Block, shown: dict[int, Shown]) -> None:
    skip_without_jq(block.text)
    assert steady(shown[block.line].text) == steady(block.text)


@cases(("sh", "endpoint"))
def test_what_the_readme_does_with_endpoints_succeeds(block: Block, tmp_path: Path, upstream: Upstream) -> None:
    skip_without_jq(block.text)
    # The stand-in has another port than the server that a reader would run, and no list price.
    text = re.sub(r"http://[\d.]+:\d+/v1", upstream.url, block.text)
    here = dataclasses.replace(block, text=re.sub(r" --max-cost-usd \S+", "", text))

    done = run_block(here, tmp_path, world(tmp_path, upstream))

    assert done.status == 0, done.text
    assert "fuse-" not in done.text, "a tool complained"
    assert upstream.stats()["requests"] > 0


@pytest.mark.parametrize("tool", TOOLS)
def test_help_in_the_readme_is_the_tools_help(tool: str) -> None:
    shown = [block.text for block in blocks(("text", None)) if block.text.startswith(f"Usage: {tool} ")]

    assert shown == [help_of(tool)]


def test_every_block_is_taken_in_one_of_the_known_ways() -> None:
    known = {("sh", None), ("sh", "endpoint"), ("sh", "install"), ("console", None), ("console", "live")}
    known |= {(language, None) for language in ("text", "jsonc", "yaml", "python", "fish")}

    assert {(block.language, block.mark) for block in blocks()} <= known


def test_quick_start_is_two_commands() -> None:
    fences = BLOCK.findall(section("Quick start"))

    assert [text.split("\n") for _, _, text in fences] == [["make demo", "make test", ""]]


@cases(("sh", "install"))
def test_installing_lines_are_make_targets_or_what_the_wheel_test_covers(block: Block) -> None:
    for line in block.text.splitlines():
        if target := re.fullmatch(r"make ([a-z-]+)", line):
            done = subprocess.run(["make", "-n", target[1]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            assert re.fullmatch(r"(pip|pipx|uv tool) install (\.|'\.\[all\]')", line), line


@cases(("yaml", None))
def test_recipes_in_the_readme_load(block: Block) -> None:
    import yaml

    recipe_yaml.build_recipe(yaml.safe_load(block.text), "README.md", "readme")


def test_sample_recipe_in_the_readme_is_the_example() -> None:
    shown = [block.text for block in blocks(("yaml", None)) if block.text.startswith("# my_recipe.yaml")]

    assert shown == [(EXAMPLES / "my_recipe.yaml").read_text()]


def test_record_in_the_readme_is_a_record() -> None:
    (block,) = blocks(("jsonc", None))
    record = json.loads(re.sub(r"\s//.*", "", block.text))

    with contextlib.suppress(InputError):
        schemas.check_record(record)
        return
    pytest.fail(str(schemas.explain("record", record)))


@cases(("python", None))
def test_python_in_the_readme_runs(block: Block, run: Run) -> None:
    assert run([sys.executable, "-c", block.text]).text.strip()


# --- What the README lists ---


def test_exit_codes_are_the_codes_of_the_program() -> None:
    known = {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}

    assert {row[0] for row in rows("Exit codes")} == known


def test_failure_codes_are_the_codes_of_the_program() -> None:
    listed = [code(row[0])[0] for row in rows("Codes of failures")]

    assert len(listed) == len(set(listed))
    assert set(listed) == failure_codes()


def test_environment_variables_are_the_ones_that_are_read() -> None:
    listed = {name for row in rows("Environment") for name in code(row[0])}
    pattern = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
    texts = {text for tree in sources() for text in literals(tree) if pattern.fullmatch(text)}

    assert listed - PROXIES == {text for text in texts if not text.startswith("RLIMIT_")}


def test_recipe_keys_are_the_schemas() -> None:
    listed = [code(row[0])[0] for row in rows("Keys of a recipe")]

    assert len(listed) == len(set(listed))
    assert set(listed) == set(recipe_keys())


def test_recipe_defaults_are_the_codes() -> None:
    listed = {code(row[0])[0]: row[1] for row in rows("Keys of a recipe")}
    known = {**recipe_keys(), "models.*.samples": Model("", "", "").samples}

    for key, default in known.items():
        if isinstance(default, bool):
            assert code(listed[key]) == [str(default).lower()], key
        elif isinstance(default, int | float):
            assert code(listed[key]) == [f"{default:g}"], key
        elif isinstance(default, str) and default:
            assert code(listed[key]) == [default], key
        else:
            assert not code(listed[key]), key


def test_shipped_recipes_are_listed_as_they_are() -> None:
    listed = {code(row[0])[0]: row for row in rows("Recipes")}
    assert set(listed) == set(recipe_yaml.recipe_names())

    for name in set(listed) - {"local"}:
        shipped = recipe_yaml.load_recipe(name)
        members, judge, synth = (code(cell) for cell in listed[name][1:4])
        assert members == [m.name for m in shipped.panel.members]
        assert judge == [m.name for m in shipped.judge.models]
        assert synth == [m.name for m in shipped.synth.models]
        samples = sum(m.samples * shipped.panel.samples for m in shipped.panel.members)
        guarded = shipped.synth.guard or any(step.given.get("guard") for step in parse(shipped.chain))
        calls = {"panel": samples, "judge": len(judge), "synth": len(synth) + 2 * guarded}
        asked = [calls.get(step.name, 0) for step in parse(shipped.chain)]
        asked.append(int(shipped.panel.agree == "judge"))
        panels = sum(count for step, count in zip(parse(shipped.chain), asked, strict=False) if step.name == "panel")
        assert listed[name][4] == f"{panels} + {sum(asked) - panels}"


def test_templates_are_all_named() -> None:
    (told,) = re.findall(r"`--template` takes (.*?) or the path", section("fuse-judge"), re.DOTALL)

    assert sorted(code(told)) == template_names()


def test_endpoints_are_the_ones_that_are_known() -> None:
    listed = {}
    for name, url, key, costs in rows("Endpoints and keys"):
        listed[code(name)[0]] = (
            code(url)[0] if code(url) else "",
            code(key)[0] if code(key) else None,
            costs == "free",
        )

    assert listed == {e.name: (e.base_url, e.api_key_env, e.free) for e in ENDPOINTS.values()}


def test_sections_are_the_schemas() -> None:
    listed = {code(row[0])[0] for row in rows("The record")}
    known = set(schemas.load("record")["properties"])

    assert listed <= known
    assert known - listed <= UNMADE


def test_what_is_derived_from_what_is_told() -> None:
    told = " ".join(section("The record").split())

    dropped = ["layers", "baselines", "spared", "analysis", "answer", "grades"]
    assert {name: list(stale) for name, stale in DERIVED.items()} == {
        "route": ["layers", "panel", *dropped[1:]],
        "panel": dropped,
        "analysis": ["answer", "grades"],
        "answer": ["grades"],
    }
    assert "a new `route` drops all that follows" in told
    assert "a new `panel` drops `layers`, `baselines`, `spared`, `analysis`, `answer` and `grades`" in told
    assert "a new `analysis` drops `answer` and `grades`" in told
    assert "a new `answer` drops `grades`" in told


def sources(folder: str = ".", but: tuple[str, ...] = ()) -> Iterator[ast.Module]:
    for path in (ROOT / "fusiontools" / folder).rglob("*.py"):
        if path.parent.name not in but:
            yield ast.parse(path.read_text())


def _is_purse(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Budget"


def literals(node: ast.AST) -> Iterator[str]:
    """Yield the strings that stand in the code, not those that are asked of a mapping."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


def failure_codes() -> set[str]:
    """Return every code that the source can put into a record; what a server refuses with has a table of its own."""
    found: set[str] = {"ok", "no_sandbox"}
    served = [node for tree in sources("serve") for node in ast.walk(tree) if _is_purse(node)]
    graded = [node for tree in sources("grading") for node in ast.walk(tree) if _is_failure(node)]
    for tree in (*sources(but=("serve", "grading", "tasks")), *served, *graded):
        for node in ast.walk(tree):
            found |= {text for part in code_parts(node) for text in literals(part)}
    return {text for text in found if re.fullmatch(r"[a-z_]+", text)} - {"code", "failed"}


def _is_failure(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "StageFailed"


def code_parts(node: ast.AST) -> list[ast.expr]:
    """Return the parts of a piece of code that are codes of failures."""
    match node:
        case ast.Call(
            func=ast.Name(id="CallFailed" | "StageFailed" | "_Missing") | ast.Attribute(attr="_note"), args=[first, *_]
        ):
            return [] if isinstance(first, ast.Starred) else [first]
        case ast.Call(func=ast.Name(id="with_error"), args=[_, _, third, *_]):
            return [third]
        case ast.Call(func=ast.Name(id="Budget"), args=[_, second, *_]):
            return [second]
        case ast.Call(func=ast.Name(id="_enter_failure"), args=[_, _, _, status, *_]):
            return [status]
        case ast.Dict(keys=keys, values=values):
            named = zip(keys, values, strict=True)
            return [value for key, value in named if isinstance(key, ast.Constant) and key.value == "code"]
        case ast.Assign(targets=[ast.Name(id="code" | "_CODES")], value=value):
            return [value]
        case ast.FunctionDef(name="_why_nothing"):
            returned = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
            return [value.elts[0] for value in returned if isinstance(value, ast.Tuple)]
    return []


def recipe_keys() -> dict[str, Any]:
    """Return every key of the recipe's schema, dotted, with its default in the code."""
    schema = schemas.load("recipe")
    defs = schema["$defs"]
    made: dict[str, Any] = {
        **{name: spec.options for name, spec in STAGES.items()},
        "limits": LimitOptions,
        "panel.few_shot": FewShot,
        "endpoints.*": Endpoint,
        "models.*": Model,
    }
    parts = {name: defs[name] for name in (*STAGES, "limits")}
    parts |= {"endpoints.*": defs["endpoint"], "models.*": defs["model"]}
    parts["panel.few_shot"] = defs["panel"]["properties"]["few_shot"]
    whole = recipe.Recipe("")
    keys: dict[str, Any] = dict.fromkeys(schema["properties"])
    keys |= {"endpoint": whole.endpoint, "chain": whole.chain, "tool_fusion": whole.tool_fusion}
    for name, part in parts.items():
        defaults = {f.name: f.default for f in dataclasses.fields(made[name])}
        for key in part["properties"]:
            default = defaults.get(key)
            keys[f"{name}.{key}"] = None if default in (dataclasses.MISSING, ()) else default
    return keys


# --- The examples ---

SCRIPTS = pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.sh")))


def run_script(script: str, cwd: Path, env: dict[str, str]) -> str:
    """Return what the example prints; it must succeed."""
    path = EXAMPLES / script
    skip_without_jq(path.read_text())
    done = subprocess.run(["sh", str(path)], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@SCRIPTS
def test_example_runs_without_a_key(script: str, tmp_path: Path) -> None:
    out = run_script(script, tmp_path, world(tmp_path, None))

    assert out.strip()
    assert not any(tmp_path.glob("*.json*")), "what it writes goes into a folder of its own"
    if script == "demo.sh":
        assert re.search(r"── \S+#0 ─.*── analysis .*── answer ", out, re.DOTALL)
    if script == "openai_batch.sh":
        asked = [json.loads(line)["custom_id"] for line in (EXAMPLES / "openai_batch.jsonl").read_text().splitlines()]
        assert [json.loads(line)["custom_id"] for line in out.splitlines()] == asked


@SCRIPTS
def test_example_runs_with_another_recipe(script: str, tmp_path: Path, upstream: Upstream) -> None:
    env = {**world(tmp_path, upstream), "RECIPE": "budget", "JUDGE": "--method model -m openai/gpt-5.5@openrouter"}

    out = run_script(script, tmp_path, env)

    assert out.strip()
    assert upstream.stats()["per_model"]["google/gemini-3-flash"]


def test_demo_asks_the_question_as_it_was_typed(tmp_path: Path, upstream: Upstream) -> None:
    typed = r'{"is this a question?"} 5$ \n'

    run_script("demo.sh", tmp_path, {**world(tmp_path, upstream), "RECIPE": "budget", "Q": typed})

    assert upstream.bodies("google/gemini-3-flash")[0]["messages"][-1]["content"] == typed


def test_batch_resumes_where_it_was_stopped(tmp_path: Path) -> None:
    skip_without_jq((EXAMPLES / "batch" / "Makefile").read_text())
    shutil.copytree(EXAMPLES / "batch", tmp_path / "batch")
    env = world(tmp_path, None)

    def make(*targets: str) -> str:
        done = subprocess.run(["make", *targets], cwd=tmp_path / "batch", env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    make()
    first = (tmp_path / "batch/answers.txt").read_text()
    make("clean")
    make()

    assert (tmp_path / "batch/answers.txt").read_text() == first
    total = make("cost").splitlines()[-1].split()
    assert total[1] == total[3], "every call was replayed"


def test_batch_judges_again_without_asking_the_panel_again(tmp_path: Path, upstream: Upstream) -> None:
    skip_without_jq((EXAMPLES / "batch" / "Makefile").read_text())
    shutil.copytree(EXAMPLES / "batch", tmp_path / "batch")
    env = world(tmp_path, upstream)
    subprocess.run(["make", "RECIPE=budget"], cwd=tmp_path / "batch", env=env, check=True, capture_output=True)
    asked = upstream.stats()["per_model"]

    again = ["make", "RECIPE=budget", "JUDGE=-m openai/gpt-5.5@openrouter", "-W", "panel.jsonl"]
    subprocess.run(again, cwd=tmp_path / "batch", env=env, check=True, capture_output=True)

    assert upstream.stats()["per_model"]["google/gemini-3-flash"] == asked["google/gemini-3-flash"]
    assert upstream.stats()["per_model"]["openai/gpt-5.5"] == 3


def test_library_example_runs(run: Run) -> None:
    done = run([sys.executable, str(EXAMPLES / "library.py")])

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


# --- All documents ---


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "examples/README.md"])
def test_links_inside_the_project_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for link in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_changelog_tells_of_this_version() -> None:
    from fusiontools.errors import __version__

    assert re.search(
        rf"^## \[?{re.escape(__version__)}\]? - \d{{4}}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )


def test_no_file_names_a_developers_machine_or_a_package_registry() -> None:
    machine = re.compile(rb"(?<![\w.*-])/(?:work|root|opt)/|/(?:home|Users)/\w|\bvenv-[a-z]+")
    registry = re.compile(rb"\b(?:pypi|npmjs|pythonhosted|crates|anaconda|rubygems)[.](?:org|com|io)\b", re.IGNORECASE)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a checkout")  # an sdist has no list of what is tracked

    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            data = path.read_bytes()
            found += [
                f"{name}: {match[0].decode()}" for pattern in (machine, registry) for match in pattern.finditer(data)
            ]
    assert not found


# --- Writing the README anew ---


def refresh() -> None:
    """Write helps, outputs and the sample recipe into the README."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = tour(Path(folder))
    text = README.read_text()
    for block in reversed(blocks()):
        new = block.text
        if block.language == "console":
            new = outputs[block.line].text
            if outputs[block.line].status:
                print(f"README.md:{block.line}: exit {outputs[block.line].status}", file=sys.stderr)
        elif block.text.startswith("Usage: "):
            new = help_of(block.text.split()[1])
        elif block.text.startswith("# my_recipe.yaml"):
            new = (EXAMPLES / "my_recipe.yaml").read_text()
        start, end = block.span
        text = text[:start] + new + text[end:]
    README.write_text(text)


if __name__ == "__main__":
    refresh()
