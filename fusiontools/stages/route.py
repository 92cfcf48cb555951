"""Decide whether a question is fused or answered by one model alone, and say why.

Reads   messages, params; answer for `--method abstained`, which lets it stand where it is one
Adds    route; calls
Calls   none; one completion for `--method model`
Fails   never: a classifier that fails leaves the decision to the rules (`route_failed`, `bad_route`); a command that
        fails (`route_failed`), or a solo route without a model for it (`no_solo_model`), is fused
Source  Chen et al. 2023, FrugalGPT, arXiv:2305.05176; Ong et al. 2024, RouteLLM, arXiv:2406.18665 (route by what a
        question needs); the rules of `heuristic` stand in route_rules.py, the table of `learned` in route_table.py

A command of the user's (`--method command`) sees the whole environment, keys included. It gets the record as one line
of JSON and prints `fuse`, `solo`, `solo TIER` or `TIER`, with the reason after it or on the lines below, or an object
`{"to": …, "tier": …, "reason": …}`. It runs in a session of its own and is killed with its children where it takes too
long or prints too much. Where it fails, the last line of its stderr is quoted.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from fusiontools.config.models import Model, model_from, plain_model
from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import RouteOptions
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed, InputError, StageCode, StageFailed
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.llm.processes import ENDED_WITHIN_S, begin, kill
from fusiontools.record import jsonl
from fusiontools.record.sections import question_text, text_of
from fusiontools.record.types import Degraded, Message, Record, Route
from fusiontools.stages import prompts
from fusiontools.stages.replies import find_object, said_in, unreadable
from fusiontools.stages.route_rules import FUSE, TIERS, Decision, decide
from fusiontools.stages.route_table import load_route_table
from fusiontools.stages.runtime import Runtime, Stage, skips_failed, with_section
from fusiontools.stages.verdicts import ask, verdict_form, verdict_params

#: One model, of the tier that the rules say.
SOLO = "solo"
_MAX_OUTPUT_BYTES, _PIECE_BYTES, _COMPLAINT_BYTES, _SHOWN_CHARS, _REASON_CHARS = 65_536, 16_384, 4_096, 120, 300
#: How long a killed command is waited for; whoever has left its group cannot hold the record up.
_PRINTED = re.compile(r"(fuse|solo|fast|balanced|strong)(?:[\s:]+(fast|balanced|strong))?(?=[\s:;,.]|$)", re.IGNORECASE)


async def ask_command(command: str, record: Record, within_s: float) -> Decision:
    """Return what the command decides.

    Raises:
        StageFailed: it cannot be started, fails, takes too long, or prints no decision.
    """
    printed = await _run_command(command, jsonl.write(record), within_s)
    decision = read_printed(printed)
    if decision is None:
        raise StageFailed("route_failed", f"the router command printed no decision: {_shorten(printed)!r}")
    return decision


def read_printed(text: str) -> Decision | None:
    """Return the decision in what a command printed, with its reason; None where there is none."""
    stripped = text.strip()
    first, _, below = stripped.partition("\n")
    for candidate in (stripped, first):
        with contextlib.suppress(ValueError):
            data = jsonl.loads(candidate)
            if isinstance(data, dict):
                return decision_in(data)
    found = _PRINTED.match(first)
    if found is None:
        return None
    word, tier, after = found[1].casefold(), found[2], first[found.end() :]
    if tier and word != SOLO:
        # `fuse fast …` is the beginning of a reason.
        tier, after = None, first[found.end(1) :]
    return Decision((tier or word).casefold(), one_line(f"{after.lstrip(' :;,.-–—')} {below}"))


def decision_in(data: Mapping[str, Any]) -> Decision | None:
    """Return the decision that an object states (`decision`, or `to` and `tier`); None where it states none."""
    to, tier = (str(data.get(key) or "").strip().casefold() for key in ("to", "tier"))
    stated = str(data.get("decision") or "").strip().casefold() or to
    effort = tier if tier and stated in ("", SOLO) else stated
    return Decision(effort, one_line(str(data.get("reason") or ""))) if effort in (FUSE, SOLO, *TIERS) else None


def one_line(text: str) -> str:
    """Return what somebody gives as a reason, short enough to be one."""
    return " ".join(text.split())[:_REASON_CHARS]


async def _run_command(command: str, data: bytes, within_s: float) -> str:
    try:
        process = await begin(
            asyncio.create_subprocess_shell(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        )
    except (OSError, ValueError) as error:
        raise StageFailed("route_failed", f"the router command cannot be started: {error}") from error
    exchange = asyncio.create_task(_exchange(process, data))
    ended: set[asyncio.Task[Any]] = set()
    try:
        ended, _ = await asyncio.wait({exchange}, timeout=within_s)
    finally:
        if not ended:
            # Its pipes are read to their ends, which come with its own.
            kill(process)
            await asyncio.wait({exchange}, timeout=ENDED_WITHIN_S)
            exchange.cancel()
    if not ended:
        raise StageFailed("route_failed", f"the router command did not end within {within_s:.3g} s")
    printed, complaint, status = exchange.result()
    if len(printed) > _MAX_OUTPUT_BYTES:
        raise StageFailed("route_failed", f"the router command printed more than {_MAX_OUTPUT_BYTES} bytes")
    if status != 0:
        why = f": {complaint}" if complaint else ""
        raise StageFailed("route_failed", f"the router command ended with status {status}{why}")
    return printed.decode("utf-8", "replace")


async def _exchange(process: Process, data: bytes) -> tuple[bytes, str, int]:
    """Return what a command prints, the last line of its complaints, and its status."""
    printed, complaint, _ = await asyncio.gather(
        _read_output(process), _read_complaint(process), _write_record(process, data)
    )
    return printed, complaint, await process.wait()


async def _write_record(process: Process, data: bytes) -> None:
    """Write the record; a command that decides without reading it is free to."""
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    if process.stdin.is_closing():
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _read_output(process: Process) -> bytes:
    """Return what is printed; whoever prints without end is killed."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    printed = b""
    while piece := await process.stdout.read(_PIECE_BYTES):
        if len(printed) > _MAX_OUTPUT_BYTES:
            continue  # what was on its way when it was killed
        printed += piece
        if len(printed) > _MAX_OUTPUT_BYTES:
            kill(process)
    return printed


async def _read_complaint(process: Process) -> str:
    """Return the last line of standard error."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    last = b""
    while piece := await process.stderr.read(_PIECE_BYTES):
        last = (last + piece)[-_COMPLAINT_BYTES:]
    lines = last.decode("utf-8", "replace").strip().splitlines()
    return _shorten(lines[-1]) if lines else ""


def _shorten(text: str) -> str:
    return one_line(text)[:_SHOWN_CHARS]


_FORM = verdict_form({"reason": {"type": "string"}, "decision": {"type": "string", "enum": [*TIERS, FUSE]}})
#: What a classifier reads of the last user turn, of every other message, and how many of these before and after it.
_TURN_CHARS, _OTHER_CHARS, _BEFORE, _AFTER = 6_000, 600, 8, 4
_SILENT = {"model": "the model gives no reason", "command": "the command gives no reason"}


def route(options_for: OptionsFor[RouteOptions]) -> Stage:
    """Return the stage."""

    @skips_failed
    async def run(record: Record, runtime: Runtime) -> Record:
        # The recipe that a record brings along has no say: it may come from anywhere, and a command is run.
        own: Any = {key: value for key, value in record.items() if key != "recipe"}
        options = options_for(own)
        if options.method == "learned":
            return with_section(record, "route", _look_up(record, options.table or ""))
        if options.method == "abstained" and not _has_abstained(record):
            kept: Route = {"to": "keep", "reason": "the vote has an answer", "method": options.method}
            return {**record, "route": kept}
        return await _Routing(record, options, runtime, runtime.ledger("route", record)).finish()

    return run


def _look_up(record: Record, path: str) -> Route:
    """Return what a learned table says of the question."""
    treatment = load_route_table(path).treat(question_text(record))
    section: Any = {"to": treatment.to, "reason": treatment.reason, "method": "learned"}
    if treatment.model is not None:
        section["model"] = plain_model(model_from(treatment.model))
    return section  # type: ignore[no-any-return]


def _has_abstained(record: Record) -> bool:
    if "answer" not in record:
        raise InputError("no `answer` in this record; `fuse-vote --threshold FILE` makes one, or abstains", "$")
    return "abstained" in record["answer"]


class _Routing(Struct):
    """The way to one record's decision."""

    record: Record
    options: RouteOptions
    runtime: Runtime
    ledger: Ledger
    notes: list[Degraded] = []

    async def finish(self) -> Record:
        method, decision = await self._decide()
        section = self._make_section(method, decision)
        return with_section(self.record, "route", section, self.ledger.calls, self.notes)

    async def _decide(self) -> tuple[str, Decision]:
        """Return who has decided, and what."""
        method = self.options.method
        if method == "always":
            return method, Decision(FUSE, "every question is fused (--method always)")
        if method == "never":
            return method, Decision(SOLO, f"no question is fused (--method never): {self._ask_rules().reason}")
        if method == "command":
            return method, await self._ask_command()
        if method == "abstained":
            alone = any((self.options.fast, self.options.balanced, self.options.strong))
            return method, Decision("strong" if alone else FUSE, "the vote abstained")
        decision = await self._ask_model() if method == "model" else None
        return ("heuristic", self._ask_rules()) if decision is None else (method, decision)

    def _ask_rules(self) -> Decision:
        return decide(self.record, self.options.min_chars)

    async def _ask_command(self) -> Decision:
        within_s = min(self.runtime.client.limits.timeout_s, self.ledger.remaining_s())
        try:
            return await ask_command(self.options.command or "", self.record, within_s)
        except StageFailed as failure:
            self._note(failure.code, f"{failure.message}; the question is fused")
            return Decision(FUSE, "the router command gave no decision")

    async def _ask_model(self) -> Decision | None:
        """Return what the classifier says; None where the rules must decide."""
        model = self.options.models[0]
        params, prompt = verdict_params(model, _FORM), route_messages(self.record)
        reply = await ask(params, prompt, model, self.runtime, self.ledger, Slot(model.name))
        if isinstance(reply, CallFailed):
            self._note("route_failed", f"{model.name}: {reply.message}; the rules decide")
            return None
        decision = read_reply(reply)
        if decision is None:
            self._note("bad_route", f"{model.name}: {unreadable(reply, 'names no route')}; the rules decide")
        return decision

    def _make_section(self, method: str, decision: Decision) -> Route:
        reason = decision.reason or _SILENT.get(method, "")
        if decision.effort == FUSE:
            return {"to": "fuse", "reason": reason, "method": method}
        tier = self._find_tier() if decision.effort == SOLO else decision.effort
        # Nobody said that a weaker model than the tier asks for will do, unless one model was insisted on.
        weaker = method in ("never", "command", "abstained")
        model = _find_model(tier, self.options, weaker=weaker)
        if model is None and _find_model(tier, self.options, weaker=True) is not None:
            return {"to": "fuse", "reason": f"{reason}: {tier} work, and no such model is named", "method": method}
        if model is None:
            self._note(
                "no_solo_model",
                f"{tier} is enough, but no model is named that answers alone (--fast, --balanced, --strong, or "
                "`route:` in a recipe): the question is fused",
            )
            return {"to": "fuse", "reason": reason, "method": method}
        return {"to": "solo", "reason": reason, "method": method, "tier": tier, "model": plain_model(model)}

    def _find_tier(self) -> str:
        """Return the tier that the rules say; what they would fuse needs a strong model."""
        effort = self._ask_rules().effort
        return "strong" if effort == FUSE else effort

    def _note(self, code: StageCode, detail: str) -> None:
        self.notes.append({"stage": "route", "code": code, "detail": detail})


def _find_model(tier: str, options: RouteOptions, *, weaker: bool) -> Model | None:
    """Return the tier's model, else the next stronger one that is named, else, where that will do, the next weaker."""
    named = {"fast": options.fast, "balanced": options.balanced, "strong": options.strong}
    place = TIERS.index(tier)
    for other in (*TIERS[place:], *(reversed(TIERS[:place]) if weaker else ())):
        if (model := named[other]) is not None:
            return model
    return None


def read_reply(reply: str) -> Decision | None:
    """Return the decision in a classifier's reply: its object, or the one word that it or its last line is."""
    if (data := find_object(reply, lambda each: bool(each.keys() & {"decision", "to", "tier"}))) is not None:
        return decision_in(data)
    *_, last = reply.strip().splitlines() or [""]
    return decision_in({"decision": said_in(reply, "decision") or said_in(last, "decision")})


def route_messages(record: Record) -> prompts.Prompt:
    """Return what a classifier reads: its rules, then the conversation as fenced data, bounded.

    The last user turn stands there nearly whole, what is around it is cut short, and pictures are only named: whoever
    is asked how hard a question is need not read, or pay for, all of it.
    """
    sections = load_template("default")
    shown = _select(record["messages"])
    mark = prompts.mark_of("route", record["id"], [text_of(message) for message in shown])
    values = {"nonce": mark, "conversation": prompts.conversation(shown)}
    system: Message = {"role": "system", "content": sections["route system"]}
    return prompts.Prompt([system, {"role": "user", "content": prompts.fill(sections["route user"], values)}], mark)


def _select(messages: list[Message]) -> list[Message]:
    last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=len(messages) - 1)
    first, end = max(0, last - _BEFORE), last + 1
    after = messages[end:][-_AFTER:]
    shown = [_cut(message, _OTHER_CHARS) for message in messages[first:last]]
    shown += [_cut(messages[last], _TURN_CHARS), *(_cut(message, _OTHER_CHARS) for message in after)]
    left_out = len(messages) - len(shown)
    if left_out:
        shown.insert(0, {"role": "…", "content": f"({left_out} more messages are not shown)"})
    return shown


def _cut(message: Message, chars: int) -> Message:
    """Return the message as text: cut in the middle, and with what it carries besides text only named."""
    text = text_of(message)
    if len(text) > chars:
        cut = len(text) - chars
        text = f"{text[: chars * 2 // 3]}\n(… {cut} characters are not shown …)\n{text[len(text) - chars // 3 :]}"
    content: Any = message.get("content")
    parts = [part["type"] for part in content if part.get("type") != "text"] if isinstance(content, list) else []
    called = [call["function"]["name"] for call in message.get("tool_calls") or []]
    more = [f"(attached: {part})" for part in parts] + [f"(calls {name})" for name in called]
    return {"role": message.get("role", "user"), "content": "\n".join(filter(None, [text, *more]))}
