"""Documents are tests: what they show is run, and what they promise is looked up.

What repeats code (helps, tables, cards) is kept by `cog`; see docs/blocks.py. How a fenced block is taken:

    ```sh            run as a script; must succeed, and no tool complains
    ```console       `$ ` lines are typed on a terminal; what comes must be what stands there, but for seconds
    ```console live  the same, but what comes is a model's words, and is not compared
    ```console fails the same as `console`, and every command must fail
    ```console clone typed by `make transcripts` only, in a fresh clone with an empty home
    ```sh system     not run, for it needs root, systemd or a container engine: a shell reads it, its files are there
    ```sh install    not run; its lines are `make` targets, and ways to install
    ```yaml          a recipe: it loads
    ```python        runs

The blocks of a page run in their order, in one directory, with the stand-in in the place of every endpoint and of the
embedded model; what a console exports holds to the page's end, and one that exports the stand-in's address has nothing
else set before. The tour runs as it stands, too. `make transcripts` writes what commands print anew.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from batching import Provider, start_provider
from parsed import MODULES, nodes
from terminal import shown
from workdir import Run, Upstream, hermetic, start_upstream

from fusiontools.config import recipe_yaml
from fusiontools.config.environment import OF_CLIENTS
from fusiontools.errors import __version__
from fusiontools.llm.batches import gemini_jobs
from fusiontools.llm.command import HARMLESS
from fusiontools.llm.programs import PROGRAMS
from fusiontools.record import schemas
from fusiontools.record.sections import DERIVED

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "docs" / "tour.md"
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")})
TYPED = [page for page in PAGES if re.search(r"^```(sh|console)( live| fails)?$", page.read_text(), re.MULTILINE)]
BLOCK = re.compile(r"^```(\w+(?: \w+)?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {
    "sh",
    "sh install",
    "sh system",
    "console",
    "console live",
    "console fails",
    "console clone",
    "text",
    "json",
    "jsonc",
    "yaml",
    "python",
    "fish",
    "mermaid",
}
#: What a tool says on stderr where nobody watches; the stand-in has no list price, so no cost can be foreseen,
#: and is no judge of pairs and rubrics, so what degraded is summed up.
COMPLAINT = re.compile(r"^fuse-[a-z]+: (?!the cost of|\d+ of \d+ records?: )", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    kind: str
    text: str
    span: tuple[int, int]

    @property
    def commands(self) -> list[str]:
        """The commands of a `console` block: `$ ` begins one, `> ` goes on with it."""
        lines = [line for line in self.text.splitlines() if line.startswith(("$ ", "> "))]
        return re.sub(r"\n> ", "\n", "\n".join(lines)).removeprefix("$ ").split("\n$ ")


def blocks(*kinds: str, pages: list[Path] = PAGES) -> list[Block]:
    found = [Block(page, m[1], m[2], m.span(2)) for page in pages for m in BLOCK.finditer(page.read_text())]
    return [block for block in found if not kinds or block.kind in kinds]


def name_of(value: Path | Block) -> str:
    return str((value if isinstance(value, Path) else value.page).relative_to(ROOT))


def world(upstream: Upstream | None, folder: Path) -> dict[str, str]:
    """Return all that a command may see of the world; without an upstream there is no key and no endpoint."""
    env = {**hermetic(upstream or Upstream(""), folder), "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100"}
    return env if upstream else {k: v for k, v in env.items() if k not in ("FUSION_BASE_URL", "FUSION_API_KEY")}


def upstream_of(page: Path, chats: Upstream, provider: Provider) -> Upstream:
    """Return what stands in for every endpoint on a page: where it sends jobs, the stand-in of those."""
    if page.name != "batches.md":
        return chats
    provider.reset()
    return Upstream(provider.url + "/openai/v1")


def run_page(page: Path, folder: Path, upstream: Upstream | None) -> Iterator[tuple[Block, list[int], str]]:
    """Run what a page types, and yield each block with the status of every command and what came."""
    env = world(upstream, folder)
    if any("export FUSION_BASE_URL" in block.text for block in blocks("console", pages=[page])):
        del env["FUSION_BASE_URL"], env["FUSION_API_KEY"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def meant(text: str) -> str:
        if upstream is None:
            return text
        text = text.replace("-c local", "-c budget").replace("8383", port)
        return re.sub(rf"http://127\.0\.0\.1:(?!{port})\d+\b", upstream.url.removesuffix("/v1"), text)

    for block in blocks("sh", "console", "console live", "console fails", pages=[page]):
        if block.kind == "sh":
            command = ["bash", "-ec", f"set -o pipefail\n{meant(block.text)}"]
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
            yield block, [done.returncode], done.stdout + done.stderr
            continue
        statuses, text = type_block(block, meant, folder, env)
        yield block, statuses, as_anywhere(text, folder, upstream)


def type_block(block: Block, meant: Callable[[str], str], folder: Path, env: dict[str, str]) -> tuple[list[int], str]:
    """Return the statuses of what a block types, and the screen; what it exports is put into `env`."""
    statuses, text = [], ""
    for command in block.commands:
        status, out = typed(f"set -o pipefail; {meant(command)}", folder, env)
        statuses.append(status)
        text += f"$ {command}\n".replace("\n", "\n> ").removesuffix("> ") + out
        if exported := re.fullmatch(r"export (\w+)=(.*)", command):
            value = ["bash", "-c", f"printf %s {meant(exported[2])}"]
            env[exported[1]] = subprocess.run(value, env=env, capture_output=True, text=True, check=True).stdout
    return statuses, text


def as_anywhere(text: str, folder: Path, upstream: Upstream | None) -> str:
    """Return a screen without what is this machine's: the folder, and the address of the stand-in."""
    home = str(folder / "home")
    text = text.replace(f"{home}/config", "~/.config").replace(home, "~").replace(f"{folder}/", "")
    return text.replace(upstream.url.removesuffix("/v1"), "http://127.0.0.1:8080") if upstream else text


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
    return process.returncode, shown(b"".join(pieces).decode())


def steady(text: str) -> str:
    """Return the text without what differs from run to run."""
    return re.sub(r"\d+\.\d+ s", "… s", text)


@pytest.fixture(autouse=True)
def _jq() -> None:
    if not shutil.which("jq"):
        pytest.skip("jq is not installed: it is the reader's tool")


@pytest.mark.slow
@pytest.mark.parametrize("page", TYPED, ids=name_of)
def test_what_a_page_types_succeeds_and_shows_what_comes(
    page: Path, tmp_path: Path, upstream: Upstream, provider: Provider
) -> None:
    for block, statuses, text in run_page(page, tmp_path, upstream_of(page, upstream, provider)):
        assert all(statuses) if block.kind == "console fails" else not any(statuses), (
            f"{statuses}\n{block.text}\n{text}"
        )
        if block.kind == "sh":
            assert not COMPLAINT.search(text), f"{block.text}\n{text}"
        if block.kind in ("console", "console fails"):
            assert steady(text) == steady(block.text)


@pytest.mark.slow
def test_the_tour_runs_on_the_embedded_model_as_it_stands(tmp_path: Path) -> None:
    for block, statuses, text in run_page(TOUR, tmp_path, None):
        assert not any(statuses), f"{block.text}\n{text}"


@pytest.mark.parametrize("block", blocks("python"), ids=name_of)
def test_python_runs(block: Block, run: Run) -> None:
    assert run([sys.executable, "-c", block.text.replace('"local"', '"budget"')]).text.strip()


@pytest.mark.parametrize("block", blocks("yaml"), ids=name_of)
def test_recipes_load(block: Block) -> None:
    import yaml

    recipe_yaml.build_recipe(yaml.safe_load(block.text), "a page", "page")


@pytest.mark.parametrize("block", blocks("sh install"), ids=name_of)
def test_lines_that_install_are_make_targets_or_ways_to_install(block: Block) -> None:
    for line in block.text.splitlines():
        if target := re.fullmatch(r"make ([a-z-]+)", line):
            done = subprocess.run(["make", "-n", target[1]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            assert re.fullmatch(r"(pip|pipx|uv tool) install (\.|'\.\[all\]')", line), line


@pytest.mark.parametrize("block", blocks("sh system"), ids=name_of)
def test_lines_that_need_a_whole_system_can_be_read_and_name_files_that_are_there(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    for named in re.findall(r"\bexamples/[\w./-]+", block.text):
        assert (ROOT / named).exists(), named


def test_record_that_is_shown_is_a_record() -> None:
    (block,) = blocks("jsonc")

    record = json.loads(re.sub(r"\s//.*", "", block.text))

    assert schemas.check_of("record")(record), schemas.explain("record", record)


def test_every_block_is_taken_in_one_of_the_known_ways() -> None:
    assert {block.kind for block in blocks()} <= KINDS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert link.startswith("https://") or target.exists(), link
        if anchor and not link.startswith("https://"):
            assert anchor in anchors(target.read_text()), link


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_tool_has_a_page_and_every_page_is_in_the_index() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}

    assert {f"tools/{name}.md" for name in scripts} <= pages
    assert pages - {"index.md"} <= set(re.findall(r"\]\(([^)]+)\)", (ROOT / "docs/index.md").read_text()))


def test_readme_is_short_and_begins_with_two_commands() -> None:
    readme = ROOT / "README.md"

    assert len(readme.read_text().splitlines()) <= 250
    assert blocks("sh install", pages=[readme])[0].text == "make demo\nmake test\n"


def test_what_is_derived_from_what_is_told() -> None:
    told = " ".join((ROOT / "docs/record.md").read_text().split())

    for section in DERIVED.keys() - {"route"}:
        *most, last = [f"`{name}`" for name in DERIVED[section]]
        stale = f"{', '.join(most)} and {last}" if most else last
        assert f"a new `{section}` drops {stale}" in told
    assert "a new `route` drops all that follows" in told


def test_environment_variables_are_the_ones_that_are_read() -> None:
    table = re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs/command-line.md").read_text(), re.MULTILINE)
    pattern = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
    constants = [node.value for module in MODULES for node in nodes(module) if isinstance(node, ast.Constant)]
    texts = {value for value in constants if isinstance(value, str) and pattern.fullmatch(value)}
    # What programs on a panel are given is handed on; what we read of it ourselves stands in the table all the same.
    handed_on = set(HARMLESS)
    for program in PROGRAMS.values():
        handed_on |= {*program.plan_env, *program.home_env, *dict(program.set_env)}
    # And what Ray is told, but for where it is, is ours to say.
    told_ray = {text for text in texts if text.startswith("RAY_")}
    texts -= (handed_on | set(OF_CLIENTS) | told_ray) - set(table)
    texts -= {*gemini_jobs.ENDS, *gemini_jobs.FINISHED}  # Gemini's words

    # Names of the system's limits, and what git is told by an agent, which git alone reads.
    assert set(table) == {text for text in texts if not text.startswith(("RLIMIT_", "SC_", "GIT_"))}


def test_changelog_tells_of_this_version() -> None:
    told = (ROOT / "CHANGELOG.md").read_text()

    assert re.search(rf"^## \[?{re.escape(__version__)}\]? - \d{{4}}-\d\d-\d\d$", told, re.MULTILINE)


def test_no_file_names_a_developers_machine_or_a_package_registry() -> None:
    machine = r"(?<![\w.*-])/(?:work|root|opt)/|/(?:home|Users)/\w|(?<![\w.])venv-[a-z]+"
    registry = r"(?i:\b(?:pypi|npmjs|pythonhosted|crates|anaconda|rubygems)[.](?:org|com|io)\b)"
    found = subprocess.run(["git", "grep", "-nP", f"{machine}|{registry}"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode > 1:
        pytest.skip("not a checkout")  # an sdist has no list of what is tracked

    assert not found.stdout


def type_in_a_clone(page: Path, folder: Path) -> Iterator[tuple[Block, str]]:
    """Type what a page types in a fresh clone, as somebody with an empty home; yield each block with what came."""
    home = folder / "home"
    clone = home / "fusiontools"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    ours = str(Path(sys.executable).parent)
    path = os.pathsep.join(entry for entry in os.environ["PATH"].split(os.pathsep) if entry != ours)
    installing = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTPS_"))}
    env = {**installing, "PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm", "NO_COLOR": "1"}
    for block in blocks("console clone", pages=[page]):
        _, text = type_block(block, str, clone, {**env, "COLUMNS": "100"})
        yield block, text.replace(str(home), "$HOME")


def refresh() -> None:
    """Write what commands print into the pages: what models say by the embedded one, all else by the stand-in."""
    with start_upstream() as chats, start_provider() as provider:
        for page in dict.fromkeys(block.page for block in blocks("console", "console live")):
            live = blocks("console live", pages=[page])
            upstream = upstream_of(page, chats, provider)
            with tempfile.TemporaryDirectory() as folder:
                screens = list(run_page(page, Path(folder), None if live else upstream))
                if blocks("console clone", pages=[page]):
                    screens += [(block, [0], out) for block, out in type_in_a_clone(page, Path(folder))]
            text = page.read_text()
            for block, statuses, out in sorted(screens, key=lambda one: one[0].span, reverse=True):
                if any(statuses) and block.kind != "console fails":
                    print(f"{name_of(page)}: exit {statuses}: {block.text}", file=sys.stderr)
                elif block.kind.startswith("console"):
                    text = text[: block.span[0]] + out + text[block.span[1] :]
            page.write_text(text)


if __name__ == "__main__":
    refresh()
