"""What the synthesizer does beside writing: fuse the best only, revise what stands, guard against the best response."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from samples import judged, lines, response
from scripted import Scripted, model, open_door
from workdir import Run, Upstream

from fusiontools.config.options import fixed
from fusiontools.config.stage_table import SynthOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta
from fusiontools.record.schemas import check_record
from fusiontools.record.types import Record
from fusiontools.stages.runtime import Runtime
from fusiontools.stages.synth import synth

S, J = model("s"), model("j")
DOWN = CallFailed("upstream", "HTTP 400: no", status=400)
TEXTS = ("Alpha is what the first one says.", "Beta is what the second one says.", "Gamma is what the third one says.")
JUDGED: Any = {**judged(ranking=(2, 0, 1)), "panel": [response(m, t) for m, t in zip("abc", TEXTS, strict=True)]}


def write(backend: Scripted, record: Any = JUDGED, heard: list[str] | None = None, **options: Any) -> Record:
    async def work() -> Record:
        door = open_door(backend)
        stage = synth(fixed(SynthOptions(**{"models": (S,), "guard_models": (J,), **options})))
        result = await stage(record, Runtime(door, heard.append if heard is not None else None))
        check_record(result)
        return result

    return asyncio.run(work())


def shown(request: CompletionRequest) -> str:
    return str(request.messages[-1]["content"])


def prefers(text: str) -> Any:
    """Return a judge that prefers the response holding this text, wherever it stands."""

    def verdict(request: CompletionRequest) -> str:
        before, _, _ = shown(request).partition(text)
        return json.dumps({"reasoning": "…", "better": "B" if "<<<END A" in before else "A"})

    return verdict


def always(label: str) -> str:
    return json.dumps({"reasoning": "…", "better": label})


# --- Top ---


def test_only_the_best_are_fused() -> None:
    backend = Scripted()

    write(backend, top=2)

    assert [text in shown(backend.requests[0]) for text in TEXTS] == [True, False, True]


def test_the_labels_stay_those_that_the_judge_used() -> None:
    everyone, best = Scripted(), Scripted()

    write(everyone)
    write(best, top=2)

    def labels(request: CompletionRequest) -> dict[str, str]:
        blocks = shown(request).split("<<<RESPONSE ")[1:]
        return {next(text for text in TEXTS if text in block): block.split()[0] for block in blocks}

    assert labels(best.requests[0]).items() <= labels(everyone.requests[0]).items()


def test_without_a_ranking_the_longest_finished_ones_are_fused_and_that_is_said() -> None:
    unranked = {**JUDGED, "panel": [response("a", "x"), response("b", "xxx"), response("c", "xx")]}
    del unranked["analysis"]
    backend = Scripted()

    result = write(backend, unranked, top=2)

    assert [note["code"] for note in result["degraded"]] == ["no_ranking"]
    assert "\nx\n" not in shown(backend.requests[0])


def test_more_than_there_are_is_all() -> None:
    backend = Scripted()

    result = write(backend, top=9)

    assert all(text in shown(backend.requests[0]) for text in TEXTS)
    assert "degraded" not in result


# --- Refine ---


def test_refine_writes_and_then_revises_what_it_wrote() -> None:
    backend = Scripted(s=["Draft.", "Final."])

    result = write(backend, refine=True)

    assert result["answer"]["content"] == "Final."
    assert result["answer"]["draft"] == {"content": "Draft.", "by": "synth", "model": "s"}
    assert "<<<ANSWER " in shown(backend.requests[1])
    assert "Draft." in shown(backend.requests[1])
    assert [call.get("step") for call in result["calls"]] == [None, "refine"]


def test_refine_revises_the_answer_that_stands() -> None:
    standing = {**JUDGED, "answer": {"content": "What stands.", "by": "synth", "model": "old"}}
    backend = Scripted(s="Better.")

    result = write(backend, standing, refine=True)

    assert len(backend.requests) == 1
    assert "What stands." in shown(backend.requests[0])
    assert result["answer"]["content"] == "Better."
    assert result["answer"]["draft"] == {"content": "What stands.", "by": "synth", "model": "old"}


def test_a_copied_answer_that_stands_can_be_revised_too() -> None:
    standing = {**JUDGED, "answer": {"content": TEXTS[0], "by": "vote", "model": "a", "response": 0}}

    result = write(Scripted(s="Better."), standing, refine=True)

    assert result["answer"]["by"] == "synth"
    assert result["answer"]["draft"]["response"] == 0


def test_a_revision_that_fails_leaves_the_answer() -> None:
    heard: list[str] = []

    result = write(Scripted(s=["Draft.", DOWN]), heard=heard, refine=True)

    assert result["answer"]["content"] == "Draft."
    assert "draft" not in result["answer"]
    assert [note["code"] for note in result["degraded"]] == ["refine_failed"]
    assert heard == ["Draft."]


def test_what_was_never_written_is_not_revised() -> None:
    result = write(Scripted(s=DOWN), refine=True)

    assert result["answer"]["by"] == "panel"
    assert [note["code"] for note in result["degraded"]] == ["synth_failed"]


def test_only_the_last_pass_is_heard() -> None:
    heard: list[str] = []

    write(Scripted(s=["Draft.", "Final."]), heard=heard, refine=True)

    assert heard == ["Final."]


def test_an_answer_that_stands_stays_where_nobody_can_revise_it() -> None:
    standing = {**JUDGED, "answer": {"content": "What stands.", "by": "synth", "model": "old"}}

    result = write(Scripted(), standing, refine=True, models=())

    assert result["answer"] == standing["answer"]
    assert [note["code"] for note in result["degraded"]] == ["no_synth"]


def test_a_vote_among_scouts_can_be_revised_and_keeps_its_count() -> None:
    spared = [{"member": "d", "sample": 0, "layer": 1, "model": "d", "endpoint": "there", "why": "scouts"}]
    count = {"key": "4", "kind": "number", "votes": 2, "of": 2, "counts": {"4": 2}, "abstained": []}
    voted = {"content": TEXTS[0], "by": "vote", "model": "a", "response": 0, "vote": count}

    result = write(Scripted(s="Better."), {**JUDGED, "spared": spared, "answer": voted}, refine=True)

    assert result["answer"]["content"] == "Better."
    assert result["answer"]["draft"]["vote"] == count


def test_every_earlier_text_and_what_was_said_of_it_is_kept() -> None:
    note = {"stage": "pick", "code": "pick_failed", "detail": "x"}
    picked = {**JUDGED, "answer": {"content": TEXTS[0], "by": "pick", "model": "a"}, "degraded": [note]}

    once = write(Scripted(s="Second."), picked, refine=True)
    twice = write(Scripted(s="Third."), once, refine=True)

    assert twice["degraded"] == [note]
    assert twice["answer"]["draft"]["content"] == "Second."
    assert twice["answer"]["draft"]["draft"]["content"] == TEXTS[0]


class BreaksOff(Scripted):
    """A model whose stream ends in the middle of a sentence."""

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        if on_delta is not None:
            on_delta("Half of a sen")
        raise CallFailed("connection", "the stream ended early")


def test_a_revision_that_breaks_off_is_not_followed_by_what_stood_before() -> None:
    standing = {**JUDGED, "answer": {"content": "What stands.", "by": "synth", "model": "old"}}
    heard: list[str] = []

    result = write(BreaksOff(), standing, heard=heard, refine=True)

    assert heard == ["Half of a sen"]
    assert result["answer"] == standing["answer"]
    assert [note["code"] for note in result["degraded"]] == ["refine_failed"]


# --- Guard ---


def test_the_better_text_is_the_answer_and_the_loser_is_kept() -> None:
    backend = Scripted(s="Written.", j=prefers("Written."))

    result = write(backend, guard=True)

    assert result["answer"]["content"] == "Written."
    assert result["answer"]["guard"] == {
        "winner": "synth",
        "judge": "j",
        "verdicts": ["synth", "synth"],
        "loser": {"content": TEXTS[2], "by": "panel", "model": "c", "response": 2},
    }


def test_a_response_that_is_better_is_the_answer_word_for_word() -> None:
    result = write(Scripted(s="Written.", j=prefers(TEXTS[2])), guard=True)

    assert (result["answer"]["content"], result["answer"]["by"], result["answer"]["response"]) == (TEXTS[2], "panel", 2)
    assert result["answer"]["guard"]["winner"] == "panel"
    assert result["answer"]["guard"]["loser"] == {"content": "Written.", "by": "synth", "model": "s"}


@pytest.mark.parametrize("reply", [always("A"), always("B"), always("tie")])
def test_a_tie_and_a_judge_that_looks_at_the_place_only_leave_the_response(reply: str) -> None:
    result = write(Scripted(s="Written.", j=reply), guard=True)

    assert result["answer"]["guard"]["winner"] == "panel"


def test_the_guard_is_blind_and_reads_both_orders() -> None:
    backend = Scripted(s="Written.", j=always("tie"))

    write(backend, guard=True)

    first, second = (shown(request) for request in backend.requests[1:])
    assert first.index("Written.") < first.index(TEXTS[2])
    assert second.index("Written.") > second.index(TEXTS[2])
    assert '"c"' not in first
    assert "synth" not in first


@pytest.mark.parametrize("reply", [DOWN, "Hm."])
def test_a_guard_that_says_nothing_leaves_what_was_written(reply: Any) -> None:
    result = write(Scripted(s="Written.", j=reply), guard=True)

    assert result["answer"]["content"] == "Written."
    assert [note["code"] for note in result["degraded"]] == ["guard_failed"]


def test_a_guarded_answer_is_heard_when_it_has_won() -> None:
    heard: list[str] = []

    write(Scripted(s="Written.", j=prefers(TEXTS[2])), heard=heard, guard=True)

    assert heard == [TEXTS[2]]


def test_equal_texts_need_no_judge() -> None:
    backend = Scripted(s=TEXTS[2])

    result = write(backend, guard=True)

    assert backend.asked == ["s"]
    assert result["answer"]["content"] == TEXTS[2]


def test_refine_comes_before_the_guard() -> None:
    backend = Scripted(s=["Draft.", "Final."], j=prefers("Final."))

    result = write(backend, refine=True, guard=True)

    assert backend.asked == ["s", "s", "j", "j"]
    assert result["answer"]["content"] == "Final."
    assert result["answer"]["draft"]["content"] == "Draft."


def test_what_was_copied_needs_no_guard() -> None:
    backend = Scripted(s=DOWN)

    write(backend, guard=True)

    assert backend.asked == ["s"]


@pytest.mark.parametrize("options", [{"refine": True}, {"guard": True}, {"refine": True, "guard": True}])
def test_where_scouts_agreed_one_of_them_is_the_answer(options: dict[str, bool]) -> None:
    spared = [{"member": "d", "sample": 0, "layer": 1, "model": "d", "endpoint": "there", "why": "scouts"}]
    backend = Scripted()

    result = write(backend, {**JUDGED, "spared": spared}, **options)

    assert backend.asked == []
    assert result["answer"]["by"] == "panel"


def test_one_model_alone_is_neither_revised_nor_guarded() -> None:
    route = {"to": "solo", "reason": "short", "model": {"name": "a", "model": "a", "endpoint": "there"}}
    backend = Scripted()

    result = write(backend, {**JUDGED, "panel": JUDGED["panel"][:1], "route": route}, refine=True, guard=True)

    assert backend.asked == []
    assert (result["answer"]["content"], result["answer"]["by"]) == (TEXTS[0], "solo")


# --- The tool ---


def test_the_recipes_judge_stands_guard(run: Run, upstream: Upstream, tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text("panel: [fake/a, fake/b]\njudge: fake/judge+text=tie\nsynth: fake/s\n")

    result = run("fuse-panel -c mine.yaml | fuse-judge | fuse-synth --guard", "Why?")

    assert result.status == 0, result.err
    assert upstream.stats()["per_model"]["fake/judge+text=tie"] == 3
    assert result.records[0]["answer"]["guard"]["judge"] == "fake/judge+text=tie"


def test_a_guard_that_nobody_can_stand_is_a_usage_error(run: Run, tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text("panel: [fake/a, fake/b]\nsynth: fake/s\n")

    result = run("fuse-synth -c mine.yaml --guard", lines([judged()]))

    assert result.status == 2
    assert "--guard: no judge is named; give --guard-model, or a recipe with a judge" in result.err


def test_guard_and_refine_contradict_a_copy(run: Run) -> None:
    for flag in ("--guard", "--refine"):
        result = run(f"fuse-synth --method copy {flag} -m fake/s", lines([judged()]))

        assert result.status == 2
        assert f"{flag} contradicts --method copy" in result.err


def test_two_filters_are_write_and_revise(run: Run) -> None:
    result = run("fuse-synth -m fake/s | fuse-synth --refine -m fake/t", lines([judged()]))

    [record] = result.records
    assert record["answer"]["model"] == "fake/t"
    assert record["answer"]["draft"]["model"] == "fake/s"
