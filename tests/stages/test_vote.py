"""Who wins a vote, what the record says of it, and the tool that counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from samples import lines
from scripted import Scripted
from stage_runs import failed, run_stage
from workdir import Run, Upstream

from fusiontools.config.options import fixed
from fusiontools.config.stage_table import VoteOptions
from fusiontools.errors import InputError
from fusiontools.stages.ballot import count_ballot
from fusiontools.stages.threshold import Threshold, panel_digest
from fusiontools.stages.vote import vote

ASKED: Any = {"id": "q1", "messages": [{"role": "user", "content": "What is 6*7?"}]}


def response(content: str, member: str = "", **more: Any) -> dict[str, Any]:
    head = {"member": member, "sample": 0, "layer": 1}
    return {**head, "content": content, "finish_reason": "stop", "tool_calls": [], **more}


def panel(*told: Any, **more: Any) -> Any:
    """Return a record with a panel of these texts or responses, by members a, b, c, …"""
    responses = [response(one) if isinstance(one, str) else one for one in told]
    named = [{**r, "member": r["member"] or "abcdefg"[i]} for i, r in enumerate(responses)]
    return {**ASKED, "panel": named, **more}


def calls(name: str, arguments: str) -> dict[str, Any]:
    made = [{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]
    return response("", finish_reason="tool_calls", tool_calls=made)


def ranked(*ranking: int) -> dict[str, Any]:
    five = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
    return {**{key: [] for key in five}, "ranking": list(ranking)}


def ask_vote(record: Any, key: str = "auto", weights: dict[str, float] | None = None) -> Any:
    """Run the stage, which asks no model."""
    backend = Scripted()
    result = run_stage(vote(fixed(VoteOptions(key, weights or {}))), record, backend)
    assert backend.requests == []
    return result


def elected(record: Any, **options: Any) -> tuple[int, str | None]:
    """Return the panel position that won, and by which rule a tie was broken."""
    answer = ask_vote(record, **options)["answer"]
    return answer["response"], answer["vote"].get("tie")


# Who wins


def test_the_majoritys_answer_is_passed_on_word_for_word_with_the_count() -> None:
    record = panel("41", "**Answer:** 42 ", failed("c"), "It is 42.0.", "I don't know")

    result = ask_vote(record)

    assert result == {
        **record,
        "answer": {
            "content": "**Answer:** 42 ",
            "by": "vote",
            "model": "b",
            "finish_reason": "stop",
            "tool_calls": [],
            "response": 1,
            "vote": {
                "key": "42", "kind": "number", "votes": 2, "of": 3, "counts": {"42": 2, "41": 1},
                "voters": {"42": [1, 3], "41": [0]}, "abstained": [4],
            },
        },
    }  # fmt: skip
    assert list(result["answer"]["vote"]["counts"]) == ["42", "41"]


def test_a_finished_response_stands_for_those_that_say_the_same() -> None:
    assert elected(panel("41", response("42", finish_reason="length"), "42")) == (2, None)


def test_the_most_confident_stands_for_those_that_say_the_same_then_the_earliest() -> None:
    sure = panel(response("42", mean_logprob=-0.5), response("42", mean_logprob=-0.1), "42", "41")

    assert elected(sure) == (1, None)
    assert elected(panel("41", "42", "42")) == (1, None)


def test_the_key_decides_how_answers_are_read() -> None:
    record = panel('{"label": "spam", "n": 1}', '{"label": "ham", "n": 2}', '{"label": "Spam", "n": 2.0}')

    by_label = ask_vote(record, "json:label")["answer"]
    by_number = ask_vote(record, "json:n")["answer"]
    by_pattern = ask_vote(record, 'regex:"n": (\\d)')["answer"]

    assert (by_label["response"], by_label["vote"]["key"], by_label["vote"]["kind"]) == (0, "spam", "json")
    assert (by_number["response"], by_number["vote"]["counts"]) == (1, {"2": 2, "1": 1})
    assert (by_pattern["vote"]["key"], by_pattern["vote"]["kind"]) == ("2", "regex")


def test_the_question_helps_to_read_the_answers() -> None:
    asked = {"messages": [{"role": "user", "content": "Capital of Australia?\nA) Sydney\nB) Canberra"}]}

    answer = ask_vote({**panel("Sydney", "(B)", "Canberra"), **asked})["answer"]

    assert (answer["response"], answer["vote"]["key"], answer["vote"]["kind"]) == (1, "B", "choice")


# Weights


def test_a_weight_counts_for_all_samples_of_its_member() -> None:
    record = panel(response("41", "x"), "42", "42", response("41", "x"))

    answer = ask_vote(record, weights={"x": 1.5, "b": 2})["answer"]

    assert (answer["vote"]["votes"], answer["vote"]["of"]) == (3, 6)
    assert answer["vote"]["counts"] == {"41": 3, "42": 3}
    assert elected(record, weights={"x": 0.75}) == (1, None)


def test_a_weight_of_0_silences() -> None:
    record = panel("42", "42", "41")

    answer = ask_vote(record, weights={"a": 0, "b": 0})["answer"]

    assert (answer["response"], answer["vote"]["of"], answer["vote"]["counts"]) == (2, 1, {"41": 1})


def test_the_silenced_do_not_stand_for_the_winner() -> None:
    assert elected(panel("42", "42", "41"), weights={"a": 0, "b": 2}) == (1, None)


def test_a_weight_for_somebody_who_is_not_there_is_said() -> None:
    result = ask_vote(panel("42", "42", failed("c")), weights={"c": 2, "nobody": 3})

    assert result["degraded"] == [
        {"stage": "vote", "code": "unknown_weight", "detail": "no member of this panel is called 'nobody'"}
    ]


# Ties


def test_a_tie_goes_to_the_earliest_member() -> None:
    assert elected(panel("41", "42", "42", "41")) == (0, "order")


def test_a_tie_goes_to_the_best_ranked_where_there_is_a_ranking() -> None:
    assert elected(panel("41", "42", "43", analysis=ranked(2, 0, 1))) == (2, "ranking")


def test_a_ranking_that_names_none_of_the_tied_breaks_no_tie() -> None:
    assert elected(panel("I don't know", "41", "42", analysis=ranked(0))) == (1, "order")


def test_a_tie_goes_to_the_most_confident_before_the_best_ranked() -> None:
    record = panel(response("41", mean_logprob=-0.9), response("42", mean_logprob=-0.1), analysis=ranked(0, 1))

    assert elected(record) == (1, "confidence")


def test_confidence_that_is_not_known_of_all_breaks_no_tie() -> None:
    assert elected(panel(response("41"), response("42", mean_logprob=-0.1))) == (0, "order")


def test_a_ranking_does_not_change_who_wins_without_a_tie() -> None:
    assert elected(panel("41", "42", "42", analysis=ranked(0, 2, 1))) == (1, None)


def test_positions_are_those_of_the_panel_whatever_the_ranking() -> None:
    record = panel(failed("a"), "I don't know", "42", "41", "No idea", analysis=ranked(4, 3, 2))

    answer = ask_vote(record)["answer"]

    assert (answer["response"], answer["model"]) == (3, "d")
    assert answer["vote"]["abstained"] == [1, 4]


# Tool calls


def test_tool_calls_vote_by_what_they_call() -> None:
    record = panel(
        calls("look", '{"at": 1}'), calls("look", '{"at": 2, "on": "x"}'), calls("look", '{"on":"x","at":2.0}')
    )

    answer = ask_vote(record)["answer"]

    assert answer["response"] == 1
    assert answer["tool_calls"] == record["panel"][1]["tool_calls"]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["vote"]["votes"] == 2
    assert answer["vote"]["key"] == '[{"name":"look","arguments":{"at":2,"on":"x"}}]'
    assert answer["vote"]["kind"] == "json"


def test_tool_calls_and_words_are_counted_side_by_side() -> None:
    vote_ = ask_vote(panel(calls("look", "{}"), "42", "42.0"))["answer"]["vote"]

    assert (vote_["kind"], vote_["counts"]) == ("number", {"42": 2, '[{"name":"look","arguments":{}}]': 1})


def test_under_a_key_of_its_own_a_tool_call_without_words_abstains() -> None:
    vote_ = ask_vote(panel(calls("look", '{"at": 1}'), "42", "42"), "number")["answer"]["vote"]

    assert vote_["abstained"] == [0]


# Where there is little to count


def test_where_nobody_can_be_counted_the_best_response_stands_in() -> None:
    result = ask_vote(panel("Well, Paris.", "Well, it may be Lyon.", analysis=ranked(0, 1)), "number")

    assert result["answer"]["content"] == "Well, Paris."
    assert result["answer"]["by"] == "panel"
    assert "vote" not in result["answer"]
    assert result["degraded"] == [
        {
            "stage": "vote",
            "code": "nothing_to_count",
            "detail": "no response can be counted as number: the best response stands in",
        }
    ]


def test_empty_responses_never_win() -> None:
    record = panel("", " ", "\n", "42")

    assert elected(record) == (3, None)
    assert ask_vote(record)["answer"]["vote"]["abstained"] == [0, 1, 2]


def test_where_all_are_silenced_there_is_nothing_to_count() -> None:
    result = ask_vote(panel("41", "42"), weights={"a": 0, "b": 0})

    assert [note["code"] for note in result["degraded"]] == ["nothing_to_count"]


def test_one_survivor_is_the_answer_without_a_vote() -> None:
    result = ask_vote(panel(failed("a"), "I don't know"))

    assert (result["answer"]["content"], result["answer"]["by"]) == ("I don't know", "panel")
    assert "vote" not in result["answer"]
    assert [note["code"] for note in result["degraded"]] == ["one_survivor"]


def test_a_panel_of_one_has_its_answer() -> None:
    result = ask_vote(panel("Paris"))

    assert result["answer"]["content"] == "Paris"
    assert "degraded" not in result


def test_a_record_that_was_routed_to_one_model_says_so() -> None:
    result = ask_vote(panel("Paris", route={"to": "solo", "model": {"name": "a", "model": "a", "endpoint": "x"}}))

    assert (result["answer"]["by"], result["answer"]["model"]) == ("solo", "a")


def test_without_a_usable_response_the_record_has_failed() -> None:
    result = ask_vote(panel(failed("a"), failed("b")))

    assert result["error"] == {
        "stage": "vote",
        "code": "all_failed",
        "message": "no response in this panel is usable",
    }
    assert "answer" not in result


def test_a_failed_record_passes_untouched() -> None:
    record = {**ASKED, "error": {"stage": "panel", "code": "all_failed", "message": "x"}, "theirs": 1}

    assert ask_vote(record, "no such key") == record


def test_what_the_stage_does_not_own_it_passes_on() -> None:
    more = {"meta": {"target": "42"}, "theirs": [1], "calls": [], "analysis": ranked(0, 1)}

    result = ask_vote(panel("41", "42", **more))

    assert {key: result[key] for key in more} == more


def test_a_new_vote_replaces_the_old_answer_and_what_was_said_of_it() -> None:
    old = {"stage": "vote", "code": "nothing_to_count", "detail": "x"}
    kept = {"stage": "panel", "code": "member_failed", "detail": "x"}
    record = panel("42", "42", answer={"content": "old", "by": "vote"}, degraded=[kept, old], grades=[])

    result = ask_vote(record)

    assert result["answer"]["content"] == "42"
    assert result["degraded"] == [kept]
    assert "grades" not in result


def test_a_key_that_cannot_be_is_a_fault_of_the_record_that_carries_it() -> None:
    with pytest.raises(InputError, match=r"\$\.recipe\.vote\.key: there is no key 'nubmer'; did you mean 'number'\?"):
        ask_vote(panel("41", "42"), "nubmer")


# The tool


def test_a_panel_votes_through_a_pipe(run: Run, upstream: Upstream) -> None:
    result = run("fuse-panel -q -m fake/a -m 'fake/b*2' | fuse-vote", "What is it?", pipefail=True)

    [record] = result.records
    assert (result.status, result.err) == (0, "")
    assert record["answer"]["by"] == "vote"
    assert record["answer"]["content"] == record["panel"][record["answer"]["response"]]["content"]
    assert record["answer"]["vote"]["of"] == 3
    assert len(record["calls"]) == len(upstream.bodies()) == 3


def test_the_tool_takes_a_key_and_weights(run: Run) -> None:
    record = panel("id=1", "id=2 and so on", "id=2.0")

    result = run(["fuse-vote", "--key", "regex:id=([\\d.]+)", "--weight", "a=3"], lines([record]))

    assert (result.status, result.err) == (0, "")
    assert result.records[0]["answer"]["vote"] == {
        "key": "1", "kind": "regex", "votes": 3, "of": 5, "counts": {"1": 3, "2": 2},
        "voters": {"1": [0], "2": [1, 2]}, "abstained": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--key", "nubmer"], "there is no key 'nubmer'; did you mean 'number'?"),
        (["--key", ""], "there is no key ''"),
        (["--key", "json:a["], "the key 'json:a[': no path"),
        (["--key", "regex:("], "the key 'regex:(': no regular expression: missing )"),
        (["--key", "regex:(?<=a)b"], "a look-behind is unknown to RE2"),
        (["--weight", "a"], "--weight 'a': write MEMBER=W"),
        (["--weight", "a=-1"], "--weight 'a=-1'"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(options: list[str], reason: str, run: Run) -> None:
    result = run(["fuse-vote", *options], b"not even JSON\n")

    assert (result.status, result.out) == (2, b"")
    assert result.err.startswith("fuse-vote: ")
    assert reason in result.err
    assert result.err.count("\n") == 1


def test_a_record_with_a_bad_key_is_set_aside_and_the_rest_goes_on(run: Run) -> None:
    bad = panel("41", "42", recipe={"vote": {"key": "regex:("}})

    result = run(["fuse-vote"], lines([bad, {**panel("41", "42"), "id": "q2"}]))

    assert result.status == 1
    assert [record["id"] for record in result.records] == ["q2"]
    assert result.err.startswith("fuse-vote: stdin:1: $.recipe.vote: the key 'regex:('")


def test_a_record_carries_its_own_key(run: Run) -> None:
    record = panel("id=1, or 7", "id=2, or 7", "id=1.0", recipe={"vote": {"key": "regex:id=([\\d.]+)"}})

    result = run(["fuse-vote"], lines([record]))

    assert result.records[0]["answer"]["vote"]["key"] == "1"


def test_no_journal_is_kept_where_nothing_is_bought(run: Run, env: dict[str, str]) -> None:
    result = run(["fuse-vote"], lines([panel("41", "42")]))

    assert result.status == 0
    assert not Path(env["HOME"]).exists()


def test_the_answer_can_be_read_as_text(run: Run) -> None:
    result = run(["fuse-vote", "-o", "text"], lines([panel("41", "**42**", "42")]))

    assert (result.status, result.text) == (0, "**42**\n")


# Learned weights and thresholds


def ask_threshold(tmp_path: Path, record: Any, agreement: float, options: VoteOptions | None = None) -> Any:
    options = options or VoteOptions()
    digest = panel_digest(record, options)
    fitted = Threshold(0.05, "asked", agreement, None, digest, 100, 0.5, 0.02)
    path = tmp_path / "threshold.json"
    path.write_bytes(fitted.as_bytes())
    chosen = VoteOptions(threshold=str(path), weighing=options.weighing, learned=options.learned)
    return run_stage(vote(fixed(chosen)), record)


def test_a_vote_answers_from_its_threshold_on(tmp_path: Path) -> None:
    answer = ask_threshold(tmp_path, panel("42", "42", "41"), 0.6)["answer"]

    assert (answer["content"], answer["vote"]["votes"]) == ("42", 2)
    assert "abstained" not in answer


@pytest.mark.parametrize("texts", [("42", "41", "40"), ("42", "42", "I don't know."), ("I don't know.",) * 3])
def test_below_it_a_vote_abstains_and_says_why(tmp_path: Path, texts: tuple[str, ...]) -> None:
    result = ask_threshold(tmp_path, panel(*texts), 0.7)

    assert (result["answer"]["content"], result["answer"]["by"]) == ("", "vote")
    assert result["answer"]["abstained"]["threshold"] == 0.7
    assert [note["code"] for note in result["degraded"]] == ["abstained"]


def test_who_fails_is_no_support(tmp_path: Path) -> None:
    bad = {"member": "", "sample": 0, "layer": 1, "error": {"code": "timeout", "message": "late"}}

    answer = ask_threshold(tmp_path, panel("42", bad, bad), 0.5)["answer"]

    assert answer["abstained"]["agreement"] == pytest.approx(1 / 3, abs=1e-4)


def test_a_threshold_of_another_panel_answers_nothing(tmp_path: Path) -> None:
    first = panel("42", "42", "42")
    ask_threshold(tmp_path, first, 0.5)
    options = VoteOptions(threshold=str(tmp_path / "threshold.json"))

    other = run_stage(vote(fixed(options)), panel("42", "42", "42", "42"))
    changed = run_stage(vote(fixed(options)), {**first, "recipe": {"panel": {"members": [], "temperature": 0.1}}})

    for result in (other, changed):
        assert result["answer"]["abstained"]["agreement"] == 1
        assert [note["code"] for note in result["degraded"]] == ["threshold_void"]


def test_who_answers_alone_by_the_router_needs_no_agreement(tmp_path: Path) -> None:
    path = tmp_path / "threshold.json"
    path.write_bytes(Threshold(0.05, "asked", 0.9, None, "x", 100, 0.5, 0.02).as_bytes())
    model = {"name": "a", "model": "a", "endpoint": "local"}

    routed = panel("42", route={"to": "solo", "reason": "easy", "model": model})

    assert run_stage(vote(fixed(VoteOptions(threshold=str(path)))), routed)["answer"]["content"] == "42"


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "else"}', '{"kind": "fusiontools threshold", "version": 2}'])
def test_a_file_that_is_no_threshold_is_refused_by_name(tmp_path: Path, run: Run, text: str) -> None:
    (tmp_path / "t.json").write_text(text)

    result = run(["fuse-vote", "--threshold", "t.json"], lines([panel("42", "42")]))

    assert result.status == 2
    assert result.err.startswith("fuse-vote: --threshold t.json: ")


def test_learned_weights_count_where_they_are_asked_for_only() -> None:
    learned = {"a": 3.0, "b": 1.0, "c": 1.0}
    told = panel("42", "41", "41")

    plain = run_stage(vote(fixed(VoteOptions(learned=learned))), told)["answer"]
    weighted = run_stage(vote(fixed(VoteOptions(weighing="learned", learned=learned))), told)["answer"]

    assert (plain["content"], weighted["content"]) == ("41", "42")
    assert weighted["vote"]["weighing"] == "learned"
    with pytest.raises(InputError, match="there are none"):
        run_stage(vote(fixed(VoteOptions(weighing="learned"))), told)


# Who was sure


def sure(content: str, logprob: float | None, member: str = "m", **more: Any) -> dict[str, Any]:
    known = {} if logprob is None else {"mean_logprob": logprob, "lowest_window_logprob": logprob}
    return response(content, member, **{**known, **more})


def counted(record: Any, **options: Any) -> tuple[Any, list[str]]:
    """Return the answer's vote, and what is said of it."""
    result = run_stage(vote(fixed(VoteOptions(**options))), record, Scripted())
    return result["answer"]["vote"], [note["detail"] for note in result.get("degraded", [])]


def test_votes_count_by_how_sure_their_member_was() -> None:
    record = panel(sure("41", -3.0), sure("41", -3.0), sure("42", -0.1))

    found, notes = counted(record, weighing="logprob")

    assert (found["key"], found["weighing"], notes) == ("42", "logprob", [])
    assert found["counts"] == {"42": 2.70259, "41": 0.29741}
    assert counted(record)[0]["key"] == "41"


def test_weights_that_are_given_and_how_sure_a_member_was_are_multiplied() -> None:
    record = panel(sure("41", -0.1, "a"), sure("41", -0.1, "a"), sure("42", -0.1, "b"), sure("43", -0.1, "b"))

    assert counted(record, weighing="logprob", weights={"b": 3.0})[0]["counts"] == {"42": 3, "43": 3, "41": 2}


def test_the_least_sure_are_left_out_and_named() -> None:
    record = panel(sure("41", -3.0), sure("41", -2.0), sure("42", -0.1), sure("42", -0.2), sure("41", -0.3))

    found, notes = counted(record, drop_lowest=0.5)

    assert (found["key"], found["counts"], found["dropped"], notes) == ("42", {"42": 2, "41": 1}, [0, 1], [])
    assert counted(record, drop_lowest=0.1)[0]["dropped"] == []
    assert "dropped" not in counted(record)[0]


def test_leaving_out_and_weights_go_together_whosever_they_are() -> None:
    record = panel(sure("41", -3.0), sure("41", -0.1), sure("42", -0.1), sure("42", -0.1, "b"), sure("41", -0.1, "b"))

    found, _ = counted(record, drop_lowest=0.4, weighing="learned", learned={"b": 0.5})
    both, _ = counted(record, drop_lowest=0.4, weighing="logprob")

    assert (found["counts"], found["dropped"], found["weighing"]) == ({"41": 1.5, "42": 1.5}, [0], "learned")
    assert (both["counts"], both["dropped"], both["weighing"]) == ({"41": 2, "42": 2}, [0], "logprob")


def test_where_responses_do_not_say_how_sure_they_are_that_is_said_and_they_count_the_same() -> None:
    partly = panel(sure("41", None), sure("41", -0.1), sure("42", -2.0))
    nobody = panel(sure("41", None), sure("41", None), sure("42", None))
    strangers = panel(sure("41", -5.0, "a"), sure("41", -5.0, "b"), sure("42", -0.1, "c"))

    for options in ({"weighing": "logprob"}, {"drop_lowest": 0.5}):
        found, notes = counted(partly, **options)
        assert (found["key"], notes) == (
            "41", ["1 of 3 responses have no log probabilities: each counts as one of its member's"],
        )  # fmt: skip
        for record, said in ((nobody, "no response says how likely"), (strangers, "no member has two responses")):
            found, [note] = counted(record, **options)
            assert found["counts"] == {"41": 2, "42": 1}
            assert note.startswith(said)


def test_agreement_is_a_share_of_what_counts() -> None:
    record = panel(
        sure("41", -3.0),
        sure("41", -2.0),
        sure("42", -0.1),
        {**sure("", None), "error": {"code": "empty", "message": ""}},
    )

    assert count_ballot(record, VoteOptions()).agreement == 0.5
    assert count_ballot(record, VoteOptions(drop_lowest=0.5)).agreement == pytest.approx(1 / 3)
    assert count_ballot(record, VoteOptions(weighing="logprob")).agreement == pytest.approx(2.4904 / 4, abs=1e-4)


def test_a_threshold_holds_for_votes_that_are_counted_alike_whether_or_not_log_probabilities_were_asked_for() -> None:
    asked, unasked = (
        {**panel("41", "42"), "recipe": {"panel": {"members": ["a"], **more}}} for more in ({"logprobs": True}, {})
    )

    assert panel_digest(asked, VoteOptions()) == panel_digest(unasked, VoteOptions())
    told = [VoteOptions(), VoteOptions(weighing="logprob"), VoteOptions(drop_lowest=0.5), VoteOptions(drop_lowest=0.4)]
    assert len({panel_digest(asked, options) for options in told}) == 4


def test_a_pipeline_counts_by_what_endpoints_say_and_a_replay_counts_the_same(run: Run, upstream: Upstream) -> None:
    members = ["-m", "fake/a+text=41+logprobs=-3", "-m", "fake/b+text=42+logprobs=-0.1+nologprobs"]
    asked = run(["fuse-panel", "-q", "--samples", "2", "--logprobs", *members], stdin=lines(ASKED))
    replayed = run(["fuse-panel", "-q", "--samples", "2", "--offline", *members], stdin=lines(ASKED))
    found = run(["fuse-vote", "-q", "--drop-lowest", "0.5"], stdin=asked.out)

    [record], [again], [voted] = asked.records, replayed.records, found.records
    assert [r.get("mean_logprob") for r in record["panel"]] == [-3.0, -3.0, None, None]
    assert again["panel"] == record["panel"]
    assert (voted["answer"]["content"], voted["answer"]["vote"]["dropped"]) == ("42", [1])
    assert [note["code"] for note in voted["degraded"]] == ["not_weighed"]
    assert [body.get("logprobs") for body in upstream.bodies(members[1])] == [True, True]
