"""Claims: read however judges write them, merged, quoted where they stand, and weighed by how many hold them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted import Scripted, model
from stage_runs import DOWN, LABEL, answered, ask_judge, ask_synth, failed, says, verdict

from fusiontools.config.stage_table import JudgeOptions, SynthOptions
from fusiontools.config.templates import load_template
from fusiontools.stages.claims import MOST_CLAIMS, merge_claims, read_claims

JUDGE = JudgeOptions((model("j"),), claims=True)
LEXICAL = JudgeOptions(method="lexical", claims=True)
SYNTH = SynthOptions((model("s"),), min_support=2)
TEXTS = ("The bridge opened\nin 1932. It is long.", "It opened in 1932.", "The bridge opened in 1930.")
PANEL = [says(member, text) for member, text in zip("abc", TEXTS, strict=True)]
AB = {"A": 0, "B": 1}


def claimed(claim: str, supporters: Any = (), opponents: Any = ()) -> dict[str, Any]:
    """Return a claim as a record has it: who stands on either side, without quotations."""
    return {
        "claim": claim,
        "supporters": [{"model": name} for name in supporters],
        "opponents": [{"model": name} for name in opponents],
    }


def reply(*claims: Any, **changes: Any) -> str:
    return json.dumps(verdict(claims=list(claims), **changes))


def judged(*claims: dict[str, Any], **found: Any) -> Any:
    """Return a record with an analysis that has these claims."""
    analysis: dict[str, Any] = {
        "consensus": [], "contradictions": [], "partial_coverage": [], "unique_insights": [], "blind_spots": [],
        "ranking": [0, 1, 2], "claims": list(claims), **found,
    }  # fmt: skip
    return answered(*PANEL, analysis=analysis)


def codes(record: Any) -> list[str]:
    return [note["code"] for note in record.get("degraded", [])]


# What a judge reports


def test_a_claim_names_who_holds_it_who_contradicts_it_and_where_they_say_so() -> None:
    said = {
        "claim": "It opened in 1932.",
        "supporters": [
            {"model": LABEL[0], "quote": "the bridge opened in 1932."},
            {"model": LABEL[1], "quote": "something it never said"},
        ],
        "opponents": [{"model": LABEL[2], "quote": "“opened in 1930”"}],
    }
    backend = Scripted(j=reply(said))

    result = ask_judge(JUDGE, answered(*PANEL), backend)

    assert result["analysis"]["claims"] == [
        {
            "claim": "It opened in 1932.",
            "supporters": [
                {"model": "a", "quote": "The bridge opened\nin 1932.", "at": 0},
                {"model": "b", "quote": "something it never said"},
            ],
            "opponents": [{"model": "c", "quote": "opened in 1930", "at": 11}],
        }
    ]
    assert "degraded" not in result
    [request] = backend.requests
    assert load_template("default")["judge claims"] in str(request.messages[0]["content"])
    assert "claims" in request.params["response_format"]["json_schema"]["schema"]["required"]


def test_who_does_not_ask_for_claims_asks_and_gets_what_he_always_did() -> None:
    backend = Scripted(j=reply(claimed("x", [LABEL[0]])))

    result = ask_judge(JUDGE.replace(claims=False), answered(*PANEL), backend)

    assert "claims" not in result["analysis"]
    assert "supporters" not in json.dumps([backend.requests[0].params, backend.requests[0].messages])


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ([{"claim": "x", "supporters": ["A"], "opponents": ["Response B"]}], [claimed("x", "A", "B")]),
        ([{"statement": "x", "supported_by": "A, B"}], [claimed("x", "AB")]),
        ([{"claim": "x", "supporters": "A", "against": {"model": "B"}}], [claimed("x", "A", "B")]),
        ([{"claim": "x", "supporters": [{"model": "A"}, {"model": "a"}]}], [claimed("x", "A")]),
        ({"claim": "x", "supporters": ["A"]}, [claimed("x", "A")]),
        ([{"claim": "x.", "supporters": ["A"]}, {"claim": "X", "supporters": ["B"]}], [claimed("x.", "AB")]),
        ([{"claim": "x", "supporters": {"A": ""}, "opponents": None}], [claimed("x", "A")]),
        ([{"claim": "x", "supporters": "A", "opponents": "None"}], [claimed("x", "A")]),
    ],
)
def test_claims_are_read_in_every_spelling(said: Any, read: Any) -> None:
    assert read_claims(json.dumps({"claims": said}), AB, {}) == (read, [])


@pytest.mark.parametrize(
    ("said", "read", "problem"),
    [
        ([{"claim": "x", "supporters": ["A", "Z"]}], [claimed("x", "A")], "1 name in the claims of no response: 'Z'"),
        ([{"claim": "x", "supporters": ["A", "B"], "opponents": ["A"]}], [claimed("x", "B", "A")], "on both sides"),
        (
            [{"claim": " ", "supporters": ["A"]}, {"claim": ["x"], "supporters": "A"}, {"claim": "x"}, "x", 3],
            [],
            "5 claims w",
        ),
        ([], [], "no claims"),
        (None, [], "no claims"),
    ],
)
def test_what_cannot_be_told_counts_for_no_claim_and_is_said(said: Any, read: Any, problem: str) -> None:
    found = read_claims(json.dumps({"claims": said}), AB, {})

    assert found.claims == read
    assert problem in "; ".join(found.problems)


def test_of_hundreds_of_claims_those_that_somebody_contradicts_stay_and_the_rest_is_said_to_be_left_out() -> None:
    many = [{"claim": f"n{i} holds", "supporters": ["A"], "opponents": ["B"] if i > 240 else []} for i in range(250)]

    found = read_claims(json.dumps({"claims": many}), AB, {"A": "x/y"})

    assert len(found.claims) == MOST_CLAIMS
    assert [each["claim"] for each in found.claims[-9:]] == [f"n{i} holds" for i in range(241, 250)]
    assert found.problems == ["250 claims: 186 are left out, of x/y"]


def test_a_reply_that_holds_claims_alone_is_an_analysis_and_one_without_them_says_so() -> None:
    alone = ask_judge(JUDGE, answered(*PANEL), Scripted(j=json.dumps({"claims": [claimed("x", [LABEL[1]])]})))
    without = ask_judge(JUDGE, answered(*PANEL), Scripted(j=json.dumps(verdict())))

    assert alone["analysis"]["claims"] == [claimed("x", "b")]
    assert without["analysis"]["claims"] == []
    assert [codes(alone), codes(without)] == [["partial_analysis"], ["partial_analysis"]]
    assert "no claims" in without["degraded"][0]["detail"]


def test_several_judges_claims_are_merged_and_where_they_are_even_a_response_contradicts() -> None:
    def first_shown(claims: Any) -> Any:
        return lambda _: reply(*claims)

    jury = JudgeOptions((model("j"), model("k")), claims=True)
    backend = Scripted(
        j=first_shown([claimed("It is long.", [LABEL[0]], [LABEL[1]])]),
        k=first_shown([claimed("it is long", [LABEL[0], LABEL[1]]), claimed("It is old.", [LABEL[2]])]),
    )

    analysis = ask_judge(jury, answered(*PANEL), backend)["analysis"]

    assert analysis["claims"] == [claimed("It is long.", "a", "b"), claimed("It is old.", "c")]
    assert analysis["supporters"]["claims"] == [["j", "k"], ["k"]]
    assert [len(each["claims"]) for each in analysis["said"]] == [1, 2]
    assert merge_claims([[claimed("x", "ab")], [claimed("x", "a", "b")], [claimed("x", "b")]], "jkl")[0] == [  # type: ignore[list-item]
        claimed("x", "ab")
    ]


# By code


def test_code_finds_who_holds_what_in_which_words_without_a_call() -> None:
    long = " Ferries had carried all of the traffic over the harbour before that day, slowly and at a price." * 3
    panel = [
        says("a", "The harbour bridge opened in March 1932." + long),
        says("b", "Well known: the harbour bridge opened in March 1932." + long),
        says("c", "The harbour bridge opened in March 1930." + long),
        failed("d"),
    ]

    result = ask_judge(LEXICAL, answered(*panel))

    opened = next(each for each in result["analysis"]["claims"] if "1932" in each["claim"])
    assert [holder["model"] for holder in opened["supporters"]] == ["a", "b"]
    assert opened["opponents"] == [{"model": "c", "quote": "The harbour bridge opened in March 1930.", "at": 0}]
    assert "calls" not in result


def test_short_answers_are_claims_against_each_other_and_who_does_not_know_contradicts_nobody() -> None:
    panel = [says("a", "Canberra"), says("b", "canberra."), says("c", "Sydney"), says("d", "I don't know.")]

    claims = ask_judge(LEXICAL, answered(*panel))["analysis"]["claims"]

    assert [each["claim"] for each in claims] == ["Canberra", "Sydney"]
    assert [[h["model"] for h in each["supporters"]] for each in claims] == [["a", "b"], ["c"]]
    assert [[h["model"] for h in each["opponents"]] for each in claims] == [["c"], ["a", "b"]]


# What enough hold


HELD, ALONE, DENIED = claimed("H", "ab"), claimed("L", "c"), claimed("D", "ab", "c")


def test_what_fewer_hold_is_marked_in_the_prompt_and_named_with_its_holders_in_the_record() -> None:
    backend = Scripted(s="Written.")

    result = ask_synth(SYNTH, judged(HELD, ALONE, DENIED), backend)

    named = [
        {"claim": c["claim"], **{k: [h["model"] for h in c[k]] for k in ("supporters", "opponents")}}
        for c in (HELD, ALONE, DENIED)
    ]
    assert result["answer"]["support"] == {
        "min_support": 2, "of": 3, "source": "claims", "kept": [named[0], named[2]], "contested": [named[1]],
    }  # fmt: skip
    assert codes(result) == ["contested"]
    assert "held by fewer than 2 of 3 responses (c; first: 'L')" in result["degraded"][0]["detail"]
    system, *_, turn = (str(message["content"]) for message in backend.requests[0].messages)
    assert load_template("default")["synth support"] in system
    shown = json.loads(turn.split("<<<ANALYSIS", 1)[1].split("\n", 1)[1].split("\n<<<END ANALYSIS", 1)[0])
    assert [each["supporters"] for each in shown["contested_claims"]] == [[LABEL[2]]]
    assert [each["opponents"] for each in shown["kept_claims"]] == [[], [LABEL[2]]]
    assert shown["min_support"] == 2


def test_a_revision_keeps_to_the_support_that_its_answer_was_built_on_and_says_nothing_twice() -> None:
    written = ask_synth(SYNTH, judged(HELD, ALONE), Scripted(s="First."))
    backend = Scripted(s="Better.")

    result = ask_synth(SynthOptions((model("s"),), refine=True), written, backend)

    assert result["answer"]["content"] == "Better."
    assert result["answer"]["support"] == written["answer"]["support"]
    assert codes(result) == ["contested"]
    assert "contested_claims" in json.dumps(backend.requests[0].messages)


@pytest.mark.parametrize(("panel", "noted"), [([says("a")], []), ([says("a"), failed("b")], ["one_survivor"])])
def test_one_response_has_nobody_to_support_it(panel: Any, noted: list[str]) -> None:
    result = ask_synth(SYNTH, answered(*panel))

    assert codes(result) == [*noted, "few_responses"]
    assert result["answer"]["support"]["contested"] == []


def test_without_min_support_nothing_is_weighed() -> None:
    backend = Scripted()

    result = ask_synth(SYNTH.replace(min_support=None), judged(HELD, ALONE), backend)

    assert "support" not in result["answer"]
    assert "contested" not in json.dumps(backend.requests[0].messages)


def test_more_support_than_there_are_responses_is_bounded_and_said() -> None:
    result = ask_synth(SYNTH.replace(min_support=5), judged(claimed("x", "abc"), HELD))

    assert (result["answer"]["support"]["min_support"], result["answer"]["support"]["of"]) == (3, 3)
    assert codes(result) == ["few_responses", "contested"]
    assert result["degraded"][0]["detail"] == "--min-support 5: 3 responses came; what all of them hold is kept"


def test_an_analysis_without_claims_is_taken_by_its_stances_points_and_insights() -> None:
    record = judged(
        consensus=["All say so."],
        contradictions=[
            {
                "topic": "year",
                "stances": [
                    {"model": "a", "stance": "1932"},
                    {"model": "b", "stance": "1932"},
                    {"model": "c", "stance": "1930"},
                ],
            }
        ],
        partial_coverage=[{"models": ["a", "b"], "point": "p"}],
        unique_insights=[{"model": "c", "insight": "i"}],
    )
    del record["analysis"]["claims"]

    two, three = (ask_synth(SYNTH.replace(min_support=k), record)["answer"]["support"] for k in (2, 3))

    assert [each["claim"] for each in two["kept"]] == ["All say so.", "year: 1932", "p"]
    assert [(each["claim"], each["supporters"], each["opponents"]) for each in two["contested"]] == [
        ("year: 1930", ["c"], ["a", "b"]),
        ("i", ["c"], []),
    ]
    # That all three hold it is more than the analysis says of a consensus.
    assert three["kept"] == []
    assert two["source"] == "analysis"
    assert "no_claims" in codes(ask_synth(SYNTH, record))


def test_without_an_analysis_code_finds_the_claims() -> None:
    result = ask_synth(SYNTH, answered(says("a", "Canberra"), says("b", "Canberra"), says("c", "Sydney")))

    support = result["answer"]["support"]
    assert [each["claim"] for each in support["kept"]] == ["Canberra"]
    assert [each["supporters"] for each in support["contested"]] == [["c"]]
    assert codes(result) == ["no_claims", "contested"]


@pytest.mark.parametrize("options", [SynthOptions(method="copy", min_support=2), SYNTH.replace(refine=True), SYNTH])
def test_a_dissenter_is_named_however_the_answer_came_about(options: SynthOptions) -> None:
    result = ask_synth(options, judged(HELD, ALONE), Scripted(s=DOWN))

    assert [each["supporters"] for each in result["answer"]["support"]["contested"]] == [["c"]]
    assert "contested" in codes(result)


def test_who_is_not_on_the_panel_holds_nothing_and_who_is_on_both_sides_contradicts() -> None:
    torn = claimed("x", ["a", "a", "ghost", "c"], ["c"])

    support = ask_synth(SYNTH, judged(torn))["answer"]["support"]

    assert support["kept"] == []
    assert support["contested"] == [{"claim": "x", "supporters": ["a"], "opponents": ["c"]}]


def test_every_sample_of_a_member_is_a_voice_of_its_own() -> None:
    panel = [says("a", "Canberra", sample=0), says("a", "Canberra", sample=1), says("b", "Sydney")]

    claims = ask_judge(LEXICAL, answered(*panel))["analysis"]["claims"]

    assert [h["model"] for h in claims[0]["supporters"]] == ["a#0", "a#1"]
