"""An agent at work on a project of a test: a scripted model, a real copy, real commands in a real sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripted import Scripted, model, open_door, said

from fusiontools.errors import UsageError
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.ledger import Event
from fusiontools.record.schemas import check_of
from fusiontools.runs.agent.agent import Agent, CodeTurn
from fusiontools.runs.agent.file_rules import Rules
from fusiontools.runs.agent.loop import AgentOptions
from fusiontools.runs.agent.turn_log import reopen_session
from fusiontools.runs.agent.work_tools import WorkPlan
from fusiontools.runs.agent.workspace import CheckRun, WorkOptions
from fusiontools.runs.session import CODE, Session, new_session
from fusiontools.stages.runtime import Runtime
from fusiontools.tools.sandbox import find_sandbox
from fusiontools.tools.tool import ToolRun

APP = "def add(a, b):\n    return a - b\n"
TEST = """\
import unittest

from app import add


class AddTest(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(1, 2), 3)
"""
CHECK = "python3 -m unittest -q"
FINISH = ("finish", {"summary": "It is done."})
MEND = ("edit", {"path": "app.py", "old": "a - b", "new": "a + b"})


def sandbox_works() -> bool:
    try:
        return find_sandbox().boxed
    except UsageError:
        return False


def git(folder: Path, *words: str) -> str:
    """Run git as somebody with a name."""
    line = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main", *words]
    return subprocess.run(line, cwd=folder, check=True, capture_output=True, text=True).stdout


def project(folder: Path, **files: str) -> Path:
    """Make a repository with an application that is wrong, its test, and more files, all of them committed."""
    folder.mkdir(parents=True)
    for name, text in {"app.py": APP, "test_app.py": TEST, ".gitignore": "*.log\n__pycache__/\n", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    return folder


def everything_in(folder: Path) -> dict[str, Any]:
    """Return all that a folder holds, `.git` included: bytes, modes and where links lead."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        kept = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (kept, path.lstat().st_mode)
    return found


def copies_of(root: Path) -> list[Path]:
    """Return the copies of a project that are there."""
    bases = Path("/var/tmp").glob("fuse-code-*/about.json")
    return [base.parent for base in bases if f'"{root}"' in base.read_text()]


def forget_copies(folder: Path) -> None:
    """Take away the copies that turns of projects in a folder have left to be gone on with."""
    # One folder after the other: those of tests that run at the same time vanish meanwhile.
    for copy in Path("/var/tmp").glob("fuse-code-*"):
        with contextlib.suppress(OSError, ValueError):
            if Path(json.loads((copy / "about.json").read_text())["root"]).is_relative_to(folder):
                shutil.rmtree(copy, ignore_errors=True)


def calling(*calls: tuple[str, Any], text: str = "", finish: str = "tool_calls") -> Completion:
    """Return a completion that calls tools: names, and arguments as an object or as the text that stands there."""
    made: Any = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": _text(given)}}
        for i, (name, given) in enumerate(calls)
    ]
    return said(text, tool_calls=made, finish_reason=finish)


def behaviour(*calls: tuple[str, Any]) -> str:
    """Return the same for the stand-in upstream."""
    return f"calls={quote(json.dumps(calls), safe='')}"


def _text(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given)


@dataclass
class Seen:
    """A watcher that remembers, and answers what it was told to."""

    answers: list[str | None] = field(default_factory=list)
    runs: list[ToolRun] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    checks: list[tuple[str, bool]] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    #: Whether it hears what the model says as it comes, and what it has heard.
    listens: bool = False
    heard: list[str | None] = field(default_factory=list)
    #: Called with the name of each call as it begins.
    on_begin: Any = None

    def waits(self, what: str) -> None:
        pass

    def hears(self) -> Callable[[str | None], None] | None:
        return self.heard.append if self.listens else None

    def says(self, text: str) -> None:
        self.texts.append(text)

    def begins(self, name: str, arguments: Any) -> None:
        if self.on_begin is not None:
            self.on_begin(name)

    def ran(self, run: ToolRun) -> None:
        self.runs.append(run)

    def checked(self, run: CheckRun, when: str) -> None:
        self.checks.append((when, run.green))

    def planned(self, plan: WorkPlan) -> None:
        self.plans.append(str(plan))

    def notes(self, text: str) -> None:
        self.texts.append(text)

    def event(self, event: Event) -> None:
        pass

    async def ask(self, what: str, shown: str) -> str | None:
        self.asked.append((what, shown))
        return self.answers.pop(0)

    @property
    def results(self) -> list[str]:
        """What every call came to, in order."""
        return [run.result.text for run in self.runs]


@dataclass
class Coding:
    """Agents at work on one project.

    Args:
        options: those of the agent that are not the defaults.
        work: those of its work.
    """

    root: Path
    options: dict[str, Any] = field(default_factory=dict)
    work: dict[str, Any] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    backend: Scripted = field(default_factory=Scripted)
    limits: dict[str, Any] = field(default_factory=dict)
    session: Session | None = None

    def turns(self, *tasks: tuple[str | None, Sequence[Any]], asks: bool = False, protect: Sequence[str] = (),
              allow: Sequence[str] = (), session: Session | None = None) -> list[CodeTurn]:  # fmt: skip
        """Work on tasks one after the other, each with what the model says to it."""

        async def main() -> list[CodeTurn]:
            client = open_door(self.backend, limits=self.limits)
            work = WorkOptions(self.root, Rules(allow, protect), **self.work)
            self.session = new_session(CODE) if session is None else reopen_session(session.id)
            agent = Agent(self.session, Runtime(client), AgentOptions(model(), work, **self.options), self.seen, asks)
            done = []
            try:
                for task, steps in tasks:
                    self.backend.script("m", *steps)
                    done.append(await agent.turn(task))
            finally:
                agent.close()
                await client.aclose()
            return done

        turns = asyncio.run(main())
        for turn in turns:
            assert check_of("record")(turn.record)
        return turns

    def turn(self, *steps: Any, task: str | None = "Mend it.", **settings: Any) -> CodeTurn:
        """Work on one task."""
        [turn] = self.turns((task, steps), **settings)
        return turn

    def run(self, *calls: tuple[str, Any], **settings: Any) -> CodeTurn:
        """Work on a task by these calls, one in each message, and finish."""
        return self.turn(*(calling(call) for call in calls), calling(FINISH), **settings)

    @property
    def requests(self) -> list[CompletionRequest]:
        return self.backend.requests
