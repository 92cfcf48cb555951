"""The agent: a session of turns on one project, each on a copy whose changes come back when the work is done.

    agent = Agent(session, runtime, options, watcher)
    turn = await agent.turn("add a /version endpoint and a test for it")

What was done comes back when the model has called `finish` and the person's check, where there is one, passes on what
comes back; else the project stays as it was. A turn that was not finished goes on in the same copy.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.errors import UsageError
from fusiontools.record.types import Record
from fusiontools.runs.agent.loop import INTERRUPTED, NOT_RUN, AgentOptions, Outcome, Steps, Watcher
from fusiontools.runs.agent.turn_log import TurnLog, answer_all
from fusiontools.runs.agent.work_copy import NotWritten, WorkCopy, lines_of, printable, remove_abandoned
from fusiontools.runs.agent.workspace import KeptWork, WorkOptions, Workspace, find_work_sandbox
from fusiontools.runs.session import Session
from fusiontools.stages.runtime import Runtime
from fusiontools.tools.sandbox import Sandbox

#: Those after which the copy stays, so that the session can go on with it.
_GOES_ON = frozenset(
    {"conflict", "unwritten", "unfinished", "steps", "repeats", "budget", "failed", "broken", "interrupted"}
)


class CodeTurn(Struct):
    """What came of a turn.

    Args:
        record: what the session has of it.
        patch: what was changed, as a diff.
    """

    outcome: Outcome
    record: Record
    patch: str = ""

    @property
    def summary(self) -> str:
        """What the model, or the failure, says at the end."""
        code: Any = self.record.get("code", {})
        return str(code.get("summary", ""))


@dataclass
class Agent:
    """An agent at work in one session.

    Args:
        asks: whether the person is asked before every change.
    """

    session: Session
    runtime: Runtime
    options: AgentOptions
    watcher: Watcher
    asks: bool = False
    log: TurnLog = field(init=False)
    _sandbox: Sandbox | None = None
    _space: Workspace | None = None
    _working: asyncio.Task[None] | None = None
    _stopped: bool = False
    _worth_keeping: bool = False

    def __post_init__(self) -> None:
        self.log = TurnLog.of(self.session)

    @property
    def goes_on(self) -> bool:
        """Whether there is a turn that has not come to its end."""
        return self.log.is_open or (bool(self.session.records) and "answer" not in self.session.records[-1])

    def stop(self) -> None:
        """End the turn under way; what was done stays, and the session can go on."""
        self._stopped = True
        if self._working is not None:
            self._working.cancel()

    async def turn(self, task: str | None) -> CodeTurn:
        """Work on a task; None goes on with the turn that was not finished.

        Raises:
            UsageError: there is no sandbox, the folder cannot be worked on, or the work cannot be written down.
            CopyStopped: somebody has stopped it before it began.
        """
        begun, self._stopped = time.monotonic(), False
        try:
            space = await self._begin()
        except OSError as error:
            raise UsageError(f"the work cannot begin: {_what_failed(error)}") from error
        work = Steps(self.options, space, self.session, self.log, self.runtime, self.watcher, asks=self.asks)
        traces = self.runtime.client.traces
        told: Record = {"id": work.context.record, "messages": []}
        with nullcontext() if traces is None else traces.record("fuse-code", told):
            self._working = asyncio.create_task(work.run(task))
            if self._stopped:
                self._working.cancel()
            await asyncio.wait({self._working})
        outcome: Outcome = "interrupted"
        if not self._working.cancelled():
            try:
                self._working.result()
                outcome = work.outcome or "unfinished"
            except OSError as error:
                outcome, work.summary = "broken", _what_failed(error)
        self._working = None
        return await self._end(work, outcome, time.monotonic() - begun)

    async def _begin(self) -> Workspace:
        """Open the copy and the log of a turn, a new one or the one to go on with."""
        before: Any = self.session.records[-1].get("code", {}) if self.session.records else {}
        space = await self._open()
        if self.goes_on and not self.log.is_open:
            # A turn that ended without an answer is in the session; its copy may still be there.
            last: Any = self.session.records[-1]
            self.log.begin(self.session, last.get("code", {}).get("state", {}))
            self.log.add(last["messages"])
        self.log.begin(self.session, {"model": before.get("model"), **self.log.about})
        if space.fresh and "work" in self.log.about:
            self.log.begin(self.session, {"gone": True})
        self.log.begin(self.session, {"root": str(self.options.work.root), "work": str(space.copy.folder)})
        return space

    def close(self, *, forget: bool = False) -> None:
        """Let go of the copy; one that nobody goes on with is taken away.

        Args:
            forget: nobody will, whatever became of the turn.
        """
        if self._space is not None:
            self._space.close(remove=forget or not (self._worth_keeping or self.log.is_open))
            self._space = None
        self.log.close()
        self.session.close()

    async def _open(self) -> Workspace:
        """Return the copy to work on: the one of a turn that was not finished, else a new one."""
        if self._space is not None and self._worth_keeping:
            return self._space
        if self._space is not None:
            self._space.close(remove=True)
            self._space = None
        if self._sandbox is None:
            self._sandbox = await asyncio.to_thread(find_work_sandbox, self.options.work)
            if not self._sandbox.boxed and self._sandbox.kind == "none":
                self.watcher.notes("there is no sandbox: commands run on the copy, with your own rights")
        copy = None
        if self.goes_on:
            last: Any = self.session.records[-1] if self.session.records else {}
            about = self.log.about or last.get("code", {}).get("state", {})
            copy = await asyncio.to_thread(_reopen, self.options.work, about.get("work"), self._sandbox.user)
            if copy is None and "work" in about:
                self.watcher.notes("the copy of the turn that was not finished is gone; it goes on with a new one")
        fresh = copy is None
        if copy is None:
            self.watcher.waits("copying the project")
            try:
                copy = await asyncio.to_thread(self._copy, self._sandbox.user)
            finally:
                self.watcher.waits("")
        self._space = Workspace.open(self.options.work, self._sandbox, copy, fresh=fresh)
        for skipped in self._space.copy.skipped[:5]:
            self.watcher.notes(f"not in the copy: {skipped}")
        return self._space

    def _copy(self, owner: int | None) -> WorkCopy:
        remove_abandoned()
        return WorkCopy.create(self.options.work.root, self.session.path, owner, lambda: self._stopped)

    async def _end(self, work: Steps, outcome: Outcome, seconds: float) -> CodeTurn:
        """Bring the work over or leave it, and write the turn into the session."""
        space = work.space
        kept, patch = KeptWork([], [], 0), ""
        counted: dict[str, tuple[int, int]] = {}
        try:
            kept = await space.settle(work.tools.files.written)
            patch, counted = await asyncio.to_thread(space.patch, kept.changes)
        except OSError as error:
            outcome, work.summary = "broken", work.summary if outcome == "broken" else _what_failed(error)
        conflicts: dict[str, str] = {}
        unwritten: list[str] = []
        if outcome == "done":
            try:
                conflicts = await asyncio.to_thread(space.copy.bring_over, kept.changes)
                outcome = "conflict" if conflicts else outcome
            except NotWritten as failure:
                outcome, unwritten = "unwritten", [printable(str(failure))]
        notes = [*dict.fromkeys([*work.notes, *kept.put_back]), *conflicts.values(), *unwritten]
        # Not written down: the record has it at once, and who goes on without does the same.
        self.log.messages += answer_all(self.log.messages, INTERRUPTED if outcome == "interrupted" else NOT_RUN)
        code: dict[str, Any] = {
            "outcome": outcome,
            "model": self.options.model.name,
            "root": str(self.options.work.root),
            "summary": work.summary,
            "changed": lines_of(kept.changes, counted),
            "tests": [printable(change.path) for change in kept.changes if change.is_test and change.path in counted],
            "notes": [printable(note) for note in notes],
            "ignored": kept.ignored,
            "steps": work.steps,
            "seconds": round(seconds, 2),
        }
        if work.checks:
            code["checks"] = work.checks
        if work.tools.plan.steps:
            code["plan"] = [list(step) for step in work.tools.plan.steps]
        if outcome in _GOES_ON:
            names = [printable(path) for path in conflicts]
            code["state"] = {**self.log.about, "conflicts": names, "unwritten": unwritten}
            if not (kept.changes or outcome == "broken"):
                # Nothing in the copy is worth keeping it.
                del code["state"]["work"]
        self._worth_keeping = "work" in code.get("state", {})
        try:
            if patch and outcome in ("reverted", "conflict"):
                code["patch"] = self._keep_patch(patch)
            # What the person has changed is what the agent goes on with.
            await asyncio.to_thread(space.copy.put_back, conflicts)
        except OSError as error:
            self._worth_keeping = True
            code["state"] = {**self.log.about, "work": str(space.copy.folder)}
            code["notes"].append(printable(f"{_what_failed(error)}; what was done stays in {space.copy.tree}"))
        record = self._record(work, outcome, code)
        try:
            self.session.append(record)
            self.log.end()
        except OSError as error:
            told = f"the session is not kept: {_what_failed(error)}; what could be written down is in {self.log.path}"
            code["notes"].append(printable(told))
            self.log.end(keep=True)
        return CodeTurn(outcome, record, patch)

    def _keep_patch(self, patch: str) -> str:
        """Write down work that is not brought over; return where."""
        path = self.session.path.with_name(f"{self.session.next_id()}.patch")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.write_text(patch, encoding="utf-8", errors="replace")
        except OSError as error:
            # Half of it would be taken for all of it.
            path.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error
        return str(path)

    def _record(self, work: Steps, outcome: Outcome, code: dict[str, Any]) -> Record:
        record: Any = {"id": self.session.next_id(), "messages": list(self.log.messages)}
        if outcome in ("done", "answered", "reverted"):
            model = self.options.model.name
            record["answer"] = {"content": work.summary, "by": "solo", "model": model, "finish_reason": "stop"}
        elif outcome in ("failed", "budget"):
            why = "budget" if outcome == "budget" else "all_failed"
            record["error"] = {"stage": "code", "code": why, "message": work.summary}
        record["code"] = code
        record["calls"] = list(self.log.calls)
        return record  # type: ignore[no-any-return]


def _what_failed(error: OSError) -> str:
    """Return which file could not be read or written, and why."""
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


def _reopen(options: WorkOptions, folder: Any, owner: int | None) -> WorkCopy | None:
    return WorkCopy.reopen(options.root, Path(folder), owner) if isinstance(folder, str) else None
