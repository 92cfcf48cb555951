"""The steps of an agent's turn: a model works on a project with tools until it calls `finish`, and the check passes.

Each step is written down before the next one. What tools return stands between fences, and results come in the order
of the calls. A call that was cut off is not run, and one that is written as text is none.

Source  Yao et al. 2022, ReAct, arXiv:2210.03629; Yang et al. 2024, SWE-agent, arXiv:2405.15793
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import Model
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed
from fusiontools.llm import prices
from fusiontools.llm.budget import NO_MONEY
from fusiontools.llm.completion import Completion, Delta
from fusiontools.llm.drafts import MemberDraft
from fusiontools.llm.ledger import Event, Slot
from fusiontools.record.sections import text_of
from fusiontools.record.types import Message, Record, ToolCall
from fusiontools.runs.agent.beneath import RefusedPath
from fusiontools.runs.agent.exact_edits import text_of_file
from fusiontools.runs.agent.turn_log import TurnLog, answer_all
from fusiontools.runs.agent.work_copy import printable
from fusiontools.runs.agent.work_tools import WorkPlan, WorkTools
from fusiontools.runs.agent.workspace import CheckRun, WorkOptions, Workspace
from fusiontools.runs.session import Session
from fusiontools.stages import prompts
from fusiontools.stages.runtime import Runtime, Stage
from fusiontools.stages.tool_loop import CUT_OFF, WRITTEN_OUT, fenced_result, is_written_out, provider_of, turn_of
from fusiontools.tools.tool import ToolContext, ToolRun
from fusiontools.tools.toolbox import Toolbox

#: How a turn ends. `done`: brought over; `answered`: nothing was to be changed; `reverted`: the check fails;
#: `conflict`: a person has changed the same files meanwhile; `unwritten`: they could not all be written;
#: `unfinished`: the model stopped without `finish`; `steps`, `repeats`, `budget`: a limit; `failed`: the model could
#: not be asked; `broken`: a file of ours could not be read or written; `interrupted`: by a person.
Outcome = Literal[
    "done", "answered", "reverted", "conflict", "unwritten", "unfinished", "steps", "repeats", "budget", "failed",
    "broken", "interrupted",
]  # fmt: skip
_NOTES = ("AGENTS.md", "CLAUDE.md")
_NOTE_CHARS, _LISTED_FILES = 32_000, 400
_MOST_REMINDERS, _MOST_CHECKS, _MOST_REPEATS = 2, 3, 3
#: What of a conversation is sent where nobody knows how much the model takes, and how many characters a token has.
_SENT_CHARS, _CHARS_PER_TOKEN = 400_000, 3
_KEPT_ROUNDS = 6
_CALL_FINISH = (
    "Nobody reads what you write between the calls. If the task is done, or cannot be done, call `finish`; else go on."
)
_CHANGED = (
    "What you did could not be brought over: the person has changed these files meanwhile, and they are now as the "
    "person has them: {}. Read them again, make your changes in them where they are still wanted, and call `finish`."
)
_UNWRITTEN = (
    "What you did could not all be written into the project ({}); it is whole in your copy. Call `finish` again, and "
    "the rest is brought over."
)
_CHECKED = "When you call `finish`, the command `{}` is run, and must pass. Do not change tests so that it does."
_NO_CHECK = "Find out how the project is tested, and test what you have changed."
_GONE = (
    "The copy that you worked on is gone: nothing of what you have changed is there. Begin with the files as they are."
)
#: What a model wrote for itself; another one is not shown it.
_OWN = ("native", "reasoning_details", "reasoning_content")
NOT_RUN = "not run: the turn is over"
INTERRUPTED = "interrupted; nobody knows whether it ran to its end: look before you go on"


class AgentOptions(Struct, frozen=True):
    """How an agent works.

    Args:
        model: who acts.
        work: on what, and what it may do there.
        advice: a chain that is asked what to do, once for each turn; None asks nobody.
        council: a chain that the tool `council` asks; None gives no such tool.
        check: a command that must pass.
        planned: whether a plan comes first.
        most_steps: how many answers of the model a turn may have.
        may_talk: whether a person is there to answer: then a text without a call ends a turn.
    """

    model: Model
    work: WorkOptions
    advice: Stage | None = None
    council: Stage | None = None
    check: str | None = None
    planned: bool = False
    most_steps: int = 100
    may_talk: bool = False


class Watcher(Protocol):
    """Somebody who sees what happens."""

    def waits(self, what: str) -> None:
        """Take note of something that takes time; an empty text says that it is over."""

    def hears(self) -> Callable[[str | None], None] | None:
        """Return what takes the model's text as it comes; None where it is shown once a step is whole.

        It is called with each piece, with nothing when what follows is no text, and with None where the model broke
        off and begins anew.
        """

    def says(self, text: str) -> None:
        """Show what the model says between its calls; it may have been heard as it came."""

    def begins(self, name: str, arguments: Any) -> None:
        """Show a call that begins."""

    def ran(self, run: ToolRun) -> None:
        """Show what came of it."""

    def checked(self, run: CheckRun, when: str) -> None:
        """Show what came of the check."""

    def planned(self, plan: WorkPlan) -> None:
        """Show the plan as it stands."""

    def notes(self, text: str) -> None:
        """Show a remark."""

    def event(self, event: Event) -> None:
        """Take note of a call of the panel's that begins or settles."""

    async def ask(self, what: str, shown: str) -> str | None:
        """Ask the person for leave; return why not, or None."""


class _HeardStep(MemberDraft):
    """What a model writes in a step, for somebody who watches: should it break off, it may begin anew."""

    def __init__(self, label: str, hear: Callable[[str | None], None]) -> None:
        super().__init__(label, 0, lambda _, __, text: hear(text))
        self._hear = hear

    def __call__(self, delta: Delta) -> None:
        super().__call__(delta)
        if not isinstance(delta, str):
            self._hear("")


class Steps:
    """The steps of one turn: the model is asked, what it calls is run, until there is an outcome.

    Args:
        asks: whether the person is asked before every change.
    """

    def __init__(
        self,
        options: AgentOptions,
        space: Workspace,
        session: Session,
        log: TurnLog,
        runtime: Runtime,
        watcher: Watcher,
        *,
        asks: bool,
    ) -> None:
        self.options, self.space, self.session, self.log = options, space, session, log
        self.runtime, self.watcher = runtime, watcher
        self.outcome: Outcome | None = None
        self.summary = ""
        self.steps = 0
        self.notes: list[str] = []
        self.checks: dict[str, str] = {}
        self.tools = WorkTools(
            space,
            planned=self.options.planned,
            council=self._convene if self.options.council else None,
            finish=self._finish,
            ask=watcher.ask if asks else None,
            show_plan=self.watcher.planned,
        )
        self.box = Toolbox(self.tools.all())
        self.context = ToolContext(session.next_id(), ("code",))
        #: The conversation as it is sent: what came first may have been cut to make room.
        self.sent: list[Message] = []
        self._reminders = self._red = self._repeats = self._asked = 0

    async def run(self, task: str | None) -> None:
        """Work on a task until the turn has an outcome; None goes on with what the log has."""
        if self.space.fresh:
            await self._prepare()
        else:
            self.checks = dict(self.log.about.get("checks", {}))
            self.space.leavings |= {*self.log.about.get("leavings", [])}
            self.tools.files.written |= {*self.log.about.get("written", [])}
        if self.log.messages:
            self.log.add(answer_all(self.log.messages, INTERRUPTED))
            changed = self.log.about.get("conflicts", [])
            told = [_UNWRITTEN.format(why) for why in self.log.about.pop("unwritten", [])]
            if self.log.about.pop("gone", False):
                told = [_GONE]
            elif changed:
                told = [_CHANGED.format(", ".join(changed))]
            if task or told or self.log.messages[-1].get("role") != "tool":
                self.log.add([{"role": "user", "content": "\n\n".join([*told, task or "Go on."])}])
            self.tools.plan.steps = [*map(tuple, self.log.about.get("plan", []))]
        else:
            before = self.session.messages or [{"role": "system", "content": await self._system()}]
            self.log.add([*before, {"role": "user", "content": await self._task(task or "", before)}])
        self.sent = list(self.log.messages)
        if self.log.about.get("model") not in (None, self.options.model.name):
            kept = [{key: value for key, value in message.items() if key not in _OWN} for message in self.sent]
            self.sent = kept  # type: ignore[assignment]
        self.log.note({"model": self.options.model.name})
        while self.outcome is None:
            if self.steps >= self.options.most_steps:
                self.outcome, self.summary = (
                    "steps",
                    f"not finished after {self.steps} step{'s' * (self.steps > 1)} (--max-steps)",
                )
                return
            await self._step()

    async def _step(self) -> None:
        try:
            completion = await self._complete()
        except CallFailed as failure:
            self.outcome = "budget" if failure.code in NO_MONEY and failure.code != "price_unknown" else "failed"
            self.summary = f"{self.options.model.name}: {failure.code}: {failure.message}"
            return
        self.steps += 1
        calls = completion.tool_calls
        if completion.paused:
            self._say([turn_of(completion, ())])
        elif calls and completion.finish_reason != "length":
            if completion.content.strip():
                self.watcher.says(completion.content)
            self._say([turn_of(completion, calls)])
            await self._run(calls)
        else:
            await self._hear(completion)

    async def _hear(self, completion: Completion) -> None:
        """Take a message without a call that can be run: an answer, or a mistake that the model is told of."""
        text = completion.content
        if completion.tool_calls or is_written_out(text, [tool.name for tool in self.box.tools]):
            reminder = CUT_OFF if completion.tool_calls else WRITTEN_OUT
        else:
            reminder = _CALL_FINISH
            if self._reminders or self.options.may_talk:
                untouched = not (await self.space.settle(self.tools.files.written)).changes
                if untouched and not (self.options.check and not self.options.may_talk):
                    self.outcome, self.summary = "answered", text
                    return
        if self._reminders >= _MOST_REMINDERS:
            self.outcome, self.summary = "unfinished", text or "the model stopped without calling finish"
            self._say([turn_of(completion, ())])
            return
        if text.strip():
            self.watcher.says(text)
        self._reminders += 1
        self._say([turn_of(completion, ()), {"role": "user", "content": reminder}])

    async def _run(self, calls: Sequence[ToolCall]) -> None:
        """Run the calls of a message one after another, and answer every one."""
        for call in calls:
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            if self.outcome is not None:
                self._answer(call, NOT_RUN)
                continue
            self.watcher.begins(name, arguments)
            run = await self.box.run(name, arguments, self.context)
            self.watcher.ran(run)
            if (traces := self.runtime.client.traces) is not None:
                traces.tool(run, Slot())
            self._repeats = self._repeats + 1 if run.repeats else 0
            text = self._masked(run.result.text)
            mark = prompts.mark_of("result", self.context.record, [text])
            self._answer(call, fenced_result(run, text, mark))
            self._note_state(name)
            if run.repeats and name == "finish" and self._red:
                self.outcome = "reverted"
            elif self._repeats >= _MOST_REPEATS and self.outcome is None:
                self.outcome, self.summary = "repeats", f"{name} was called again and again with the same arguments"

    def _masked(self, text: str) -> str:
        for secret in self.options.work.secrets:
            text = text.replace(secret, "[a key stood here]")
        return text

    def _note_state(self, name: str) -> None:
        """Write down what the tools remember, where one has just changed it."""
        if name in ("plan", "step"):
            self.log.note({"plan": [list(step) for step in self.tools.plan.steps]})
        elif name in ("edit", "write", "patch"):
            written = self.tools.files.written
            self.log.note({"written": sorted(path for path in written if path == printable(path))})

    def _answer(self, call: ToolCall, text: str) -> None:
        self._say([{"role": "tool", "tool_call_id": call["id"], "content": text}])

    def _say(self, messages: list[Message]) -> None:
        self.log.add(messages)
        self.sent += messages

    async def _complete(self) -> Completion:
        """Ask the model; one that says that the conversation is too long is asked once more with less of it."""
        most = self._most_chars()
        self._make_room(most)
        try:
            return await self._ask()
        except CallFailed as failure:
            if failure.code != "context_length" or not self._make_room(_chars(self.sent) // 2):
                raise
        return await self._ask()

    async def _ask(self) -> Completion:
        model, runtime = self.options.model, self.runtime
        tools, _ = self.box.declared_for(provider_of(model, runtime.client))
        params = {
            "temperature": model.temperature, "top_p": model.top_p, "max_tokens": model.max_tokens,
            "reasoning_effort": model.reasoning_effort, **model.extra, "tools": tools,
        }  # fmt: skip
        said = {name: value for name, value in params.items() if value is not None}
        record: Record = {
            "id": self.context.record, "messages": self.log.messages, "calls": self.log.calls
        }  # fmt: skip
        ledger = runtime.ledger("code", record)
        request = runtime.client.request(model, prompts.with_system(self.sent, model.system), said)
        self.watcher.waits(model.name)
        hear = self.watcher.hears()
        draft = None if hear is None else _HeardStep(model.name, hear)
        try:
            return await runtime.client.complete(request, model, ledger, Slot(model.name), draft)
        finally:
            self.watcher.waits("")
            self.log.add([], ledger.calls)

    def _most_chars(self) -> int:
        """Return how much of the conversation may be sent, the answer's room left out."""
        endpoint = self.runtime.client.endpoints.get(self.options.model.endpoint)
        tokens = prices.context_tokens(endpoint, self.options.model) if endpoint is not None else None
        return _SENT_CHARS if tokens is None else min(_SENT_CHARS, tokens * _CHARS_PER_TOKEN * 3 // 4)

    def _make_room(self, most_chars: int) -> bool:
        """Cut the oldest results down where the conversation is too long, to half of what there may be.

        Calls and results stay together: an endpoint refuses one without the other. It is cut by much and seldom, since
        each time an endpoint must read all of it anew.
        """
        too_many = _chars(self.sent) - most_chars
        if too_many <= 0:
            return False
        to_go = too_many + most_chars // 2
        for i, message in enumerate(self.sent[:-_KEPT_ROUNDS]):
            text = message.get("content")
            if message.get("role") == "tool" and isinstance(text, str) and len(text) > 200 and to_go > 0:
                left = f"[{len(text)} characters were taken out to make room; run it again if you need them]"
                self.sent[i] = {**message, "content": left}
                to_go -= len(text)
        return True

    async def _prepare(self) -> None:
        """Run the person's check on the project as it is, and remember what that leaves behind."""
        if self.options.check:
            run = await self._check("before")
            self.checks["before"] = "green" if run.green else "red"
            await asyncio.to_thread(self.space.note_leavings)
        leavings = [path for path in self.space.leavings if path == printable(path)]
        self.log.note({"checks": self.checks, "leavings": sorted(leavings)})
        self.space.fresh = False

    async def _check(self, when: str) -> CheckRun:
        assert self.options.check is not None  # noqa: S101 - the caller has looked
        self.watcher.waits(self.options.check)
        run = await self.space.check(self.options.check)
        self.watcher.waits("")
        self.watcher.checked(run, when)
        return run

    async def _finish(self, summary: str) -> str | None:
        """End the turn, or say why it does not end: the check fails."""
        kept = await self.space.settle(self.tools.files.written)
        if kept.put_back:
            self.notes += kept.put_back
        told = "".join(f"\nPut back as it was: {why}" for why in kept.put_back)
        self.summary = summary
        if self.options.check:
            run = await self._check("after")
            self.checks["after"] = "green" if run.green else "red"
            if not run.green:
                self._red += 1
                if self._red >= _MOST_CHECKS:
                    self.outcome = "reverted"
                    return f"The check `{self.options.check}` still fails; nothing of the work is kept.\n{run.text}"
                return f"Not finished: the check `{self.options.check}` fails.{told}\n{run.text}"
        self.outcome = "done" if kept.changes or self.options.check else "answered"
        return None

    async def _convene(self, question: str, paths: Sequence[str]) -> str:
        """Ask the whole panel a question, with files as evidence; return its answer."""
        self._asked += 1
        evidence = []
        for path in paths:
            with self.space.files.find(path) as spot:
                text = text_of_file(spot.read(_NOTE_CHARS * 4))[0][: _NOTE_CHARS * 2]
                if not text.strip() or "\0" in text:
                    raise RefusedPath(f"{spot.path} holds no text")
                evidence.append({"title": spot.path, "text": self._masked(text)})
        assert self.options.council is not None  # noqa: S101 - there is no such tool without
        record = await self._fuse(self.options.council, f"council-{self._asked}", question, evidence)
        if error := record.get("error"):
            raise RefusedPath(f"the council gave no answer: {error['code']}: {error['message']}")
        agreement = record.get("analysis", {}).get("agreement")
        agreed = f"({agreement:.0%} of the responses agree)\n" if agreement is not None else ""
        return agreed + record["answer"]["content"]

    async def _fuse(self, stage: Stage, name: str, question: str, evidence: Sequence[Any], system: str = "") -> Record:
        messages: list[Message] = [{"role": "user", "content": question}]
        asked: Any = {"id": f"{self.context.record}-{name}", "messages": prompts.with_system(messages, system)}
        if evidence:
            asked["evidence"] = list(evidence)
        runtime = replace(self.runtime, notify=self.watcher.event)
        record = await stage(asked, runtime)
        self.log.add([], record.get("calls", []))
        return record

    async def _system(self) -> str:
        """Return what the model reads first, the project's own notes at the end."""
        sections = load_template("default")
        check = self.options.check
        text = prompts.fill(
            sections["agent system"],
            {
                "root": self.space.at,
                "network": "The network can be reached." if self.options.work.network else "There is no network.",
                "check": _CHECKED.format(check) if check else _NO_CHECK,
            },
        )
        notes = []
        for name in _NOTES:
            try:
                with self.space.files.find(name) as spot:
                    body = text_of_file(spot.read(_NOTE_CHARS * 4))[0][:_NOTE_CHARS]
            except (OSError, RefusedPath):
                continue
            if body.strip():
                mark = prompts.mark_of("notes", self.context.record, [body])
                notes.append(prompts.fence(f"NOTES {name}", self._masked(body), mark))
        plan = [sections["agent plan"]] if self.options.planned else []
        return "\n\n".join([str(text), *plan, *notes])

    async def _task(self, task: str, before: Sequence[Message]) -> str:
        """Return the task, with what the chain advises where there is one."""
        if self.options.advice is None:
            return task
        files, _ = await self.space.list_files()
        listed: Any = {"title": "the files of the project", "text": "\n".join(files[:_LISTED_FILES]) or "none"}
        said = [f"[{m['role']}]\n{text_of(m)}" for m in before if m.get("role") in ("user", "assistant") and text_of(m)]
        asked = "\n\n".join([*said[-4:], task])
        adviser = load_template("default")["agent adviser"]
        record = await self._fuse(self.options.advice, "advice", asked, [listed], adviser)
        if error := record.get("error"):
            self.watcher.notes(f"the chain gave no advice: {error['code']}: {error['message']}")
            return task
        advice = record["answer"]["content"]
        self.watcher.says(advice)
        mark = prompts.mark_of("advice", self.context.record, [advice])
        return "\n\n".join([task, load_template("default")["agent advice"], prompts.fence("ADVICE", advice, mark)])


def _chars(messages: Sequence[Message]) -> int:
    """Return how long a conversation is."""
    called = sum(len(c["function"]["arguments"]) for m in messages for c in m.get("tool_calls") or [])
    return called + sum(len(text_of(message)) for message in messages)
