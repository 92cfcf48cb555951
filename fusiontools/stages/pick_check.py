"""Pick by a check: the best ranked response that a person's command passes, and another try where it passes none.

Every usable response is checked, equal ones once. With `--check-retry` each member reads what the command said of its
own response, and answers again: the first round in which a new response passes gives the answer.

Source  Li et al. 2022, AlphaCode, arXiv:2203.07814 (filtering samples by tests); Chen et al. 2023, Teaching Large
        Language Models to Self-Debug, arXiv:2304.05128 (showing a model what its program did)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.answers.extract import drop_thoughts
from fusiontools.answers.fences import fenced_blocks
from fusiontools.config.stage_table import PickOptions
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record import jsonl, sections
from fusiontools.record.params import MEMBER, select_params
from fusiontools.record.types import Degraded, Message, Record
from fusiontools.stages import prompts
from fusiontools.stages.runtime import Runtime, copy_response, with_section
from fusiontools.tools.check import Checker, CheckVerdict, ImaginedChecker, open_checker
from fusiontools.tools.opening import secrets_here


async def pick_checked(record: Record, options: PickOptions, runtime: Runtime) -> Record:
    """Return the record with the best ranked response that the check passes as its answer.

    Raises:
        UsageError: nothing can be checked here.
    """
    checker = await _open(options, runtime)
    return await _Checking(record, options, runtime, checker, runtime.ledger("pick", record)).finish()


def checker_key(options: PickOptions) -> int:
    """Return the key under which a run's client has what runs this check."""
    return hash((options.check, options.check_files, options.check_s))


async def _open(options: PickOptions, runtime: Runtime) -> Checker | ImaginedChecker:
    """Return what runs the check, opened once for a run."""
    opened = runtime.client.opened
    key = checker_key(options)
    if key not in opened:
        assert options.check is not None  # noqa: S101 - the caller has looked
        made = await asyncio.to_thread(
            open_checker,
            options.check,
            options.check_files,
            options.check_s,
            wrapper=runtime.tool_options.sandbox,
            secrets=secrets_here(),
        )
        opened.setdefault(key, made)  # others may have opened it meanwhile
    checker = opened[key]
    assert isinstance(checker, Checker | ImaginedChecker)  # noqa: S101 - nobody else opens anything under this key
    return checker


def program_in(text: str) -> str | None:
    """Return the longest fenced block of an answer, its thoughts left out; None where it has none."""
    blocks, _ = fenced_blocks(drop_thoughts(text).replace("\r\n", "\n"))
    return max(blocks, key=len) if blocks else None


class _Checking(Struct):
    """One record on its way through the check."""

    record: Record
    options: PickOptions
    runtime: Runtime
    checker: Checker | ImaginedChecker
    ledger: Ledger
    notes: list[Degraded] = []
    _known: dict[str, asyncio.Task[CheckVerdict]] = {}

    async def finish(self) -> Record:
        """Return the record with its answer."""
        order = sections.by_rank(self.record)
        texts = {position: self.record["panel"][position].get("content") or "" for position in order}
        verdicts = await self._check(texts)
        passed = [position for position in order if verdicts[position].passed]
        how: dict[str, Any] = {"method": "check", "checked": len(order), "passed": sorted(passed)}
        if passed:
            answer = sections.take_verbatim(self.record, passed[0], "pick", pick=how)
            return with_section(self.record, "answer", answer)
        talks = self._begin_again(order) if self.options.check_retries else {}
        for nth in range(1, self.options.check_retries + 1):
            for position, messages in talks.items():
                messages += self._told(texts[position], verdicts[position])
            second = await self._ask_again(talks)
            texts |= {position: completion.content for position, completion in second.items()}
            verdicts |= await self._check({position: texts[position] for position in second})
            passed = [position for position in order if position in second and verdicts[position].passed]
            if passed:
                return self._with_retried(second[passed[0]], passed, {**how, "passed": sorted(passed), "retry": nth})
            talks = {position: talks[position] for position in second}
        self._note_none(len(order), verdicts[order[0]])
        return copy_response(self.record, order[0], self.notes, self.ledger.calls, by="pick")

    async def _check(self, texts: Mapping[int, str]) -> dict[int, CheckVerdict]:
        """Return what the check says of each text; equal ones are checked once."""
        for text in texts.values():
            if text not in self._known:
                self._known[text] = asyncio.ensure_future(self._run(text))
        try:
            async with asyncio.timeout(max(0.0, self.ledger.remaining_s())):
                return {position: await self._known[text] for position, text in texts.items()}
        except TimeoutError:
            late = CheckVerdict(False, "not checked: the record's time was over (--deadline)")
            done = {text: task.result() for text, task in self._known.items() if task.done() and not task.cancelled()}
            return {position: done.get(text, late) for position, text in texts.items()}
        finally:
            for task in self._known.values():
                task.cancel()

    async def _run(self, text: str) -> CheckVerdict:
        about = {name: self.record[name] for name in ("id", "messages", "params", "meta") if name in self.record}
        program = program_in(text)
        files = {"record.json": jsonl.dumps(about).decode(), "response": text}
        if program is not None:
            files["program"] = program
        return await self.checker.check(files, "response" if program is None else "program")

    def _begin_again(self, order: Sequence[int]) -> dict[int, list[Message]]:
        """Return what each member was asked; who is on no panel that is known here is noted, and not asked again."""
        known = [position for position in order if self._member(position) is not None]
        strangers = sorted({self.record["panel"][i]["member"] for i in order if i not in known})
        if strangers:
            detail = f"{', '.join(strangers)}: is on no panel that is known here, and cannot be asked again"
            self.notes.append({"stage": "pick", "code": "member_failed", "detail": detail})
        return {i: prompts.with_system(self.record["messages"], self._member(i).system) for i in known}

    def _member(self, position: int) -> Any:
        name = self.record["panel"][position]["member"]
        return next((member for member in self.options.panellists if member.name == name), None)

    def _told(self, text: str, verdict: CheckVerdict) -> list[Message]:
        """Return a member's own turn, and what it is told of it."""
        mark = prompts.mark_of("check", self.record["id"], [verdict.said])
        output = prompts.fence("CHECK", verdict.said, mark)
        told = load_template(self.options.template)["check failed"].replace("{{output}}", output)
        return [{"role": "assistant", "content": text}, {"role": "user", "content": told}]

    async def _ask_again(self, talks: Mapping[int, list[Message]]) -> dict[int, Completion]:
        """Return what came of asking each member again; who fails is noted, and not asked any more."""
        answers = await asyncio.gather(*(self._ask(position, talks[position]) for position in talks))
        return {position: answer for position, answer in zip(talks, answers, strict=True) if answer is not None}

    async def _ask(self, position: int, messages: list[Message]) -> Completion | None:
        model, response = self._member(position), self.record["panel"][position]
        params: dict[str, Any] = {
            "temperature": model.temperature,
            "top_p": model.top_p,
            "max_tokens": model.max_tokens,
            "reasoning_effort": model.reasoning_effort,
            **select_params(self.record.get("params", {}), MEMBER),
            **model.extra,
        }
        said = {name: value for name, value in params.items() if value is not None}
        request = self.runtime.client.request(model, list(messages), said, response["sample"])
        slot = Slot(model.name, response["sample"], step="retry")
        try:
            return await self.runtime.client.complete(request, model, self.ledger, slot)
        except CallFailed as failure:
            detail = f"{model.name}, asked again: {failure.code}: {failure.message}"
            self.notes.append({"stage": "pick", "code": "member_failed", "detail": detail})
            return None

    def _with_retried(self, completion: Completion, passed: list[int], how: dict[str, Any]) -> Record:
        """Return the record with a response of a later round as its answer: it is none of the panel's."""
        answer: Any = {
            "content": completion.content,
            "by": "pick",
            "model": self.record["panel"][passed[0]]["member"],
            "finish_reason": completion.finish_reason,
            "tool_calls": [],
            "pick": how,
        }
        return with_section(self.record, "answer", answer, self.ledger.calls, self.notes)

    def _note_none(self, count: int, verdict: CheckVerdict) -> None:
        tried = f", nor what came of {self.options.check_retries} more tries" if self.options.check_retries else ""
        kind = "best ranked" if self.record.get("analysis", {}).get("ranking") else "longest finished"
        said = " ".join(verdict.said.split())[-200:]
        detail = f"none of {count} responses passes{tried}; the {kind} one stands in, of which the check said: {said}"
        self.notes.append({"stage": "pick", "code": "check_failed", "detail": detail})
