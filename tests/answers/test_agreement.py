"""What counts as the same answer, and that all who compare answers say so alike."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Scripted, open_door
from votes import OPTIONS, TEXTS

from fusiontools.answers import agreement
from fusiontools.answers.keys import ASKS_CODE, CODE_WORDS, asks_code, read_votes, vote_keys
from fusiontools.answers.lexical import same
from fusiontools.cli.text import record_as_text
from fusiontools.config.options import fixed
from fusiontools.config.stage_table import JudgeOptions, VoteOptions
from fusiontools.record import schemas
from fusiontools.record.types import Record
from fusiontools.stages.judge import judge
from fusiontools.stages.panel_agreement import agree_by_code
from fusiontools.stages.runtime import Runtime
from fusiontools.stages.vote import vote

#: Labelled by hand: question, two answers, whether they say the same.
PAIRS = [json.loads(line) for line in (Path(__file__).parent / "agreement.jsonl").read_text("utf-8").splitlines()]
#: What is judged wrong: words of one stem, knowledge of the world, numbers in words of other languages.
WRONG = {
    ("The gravity of the Moon", "Mainly the Moon's gravitational pull"),
    ("No", "Pluto is a dwarf planet."),
    ("Es 12.", "Doce"),
}
#: Long texts that give no result: nobody is told that they agree, or that they do not.
UNKNOWN = 27

HAMLET = (
    "William Shakespeare",
    "Shakespeare",
    "It was written by William Shakespeare around 1600.",
    "Francis Bacon",
    "Francis Bacon",
)
#: Panels of the vote's own cases, and of those on which two engines once contradicted each other.
PANELS: list[tuple[str, tuple[str, ...]]] = [
    ("Who wrote Hamlet?", HAMLET),
    ("What is 6*7?", ("41", "**Answer:** 42 ", "It is 42.0.", "I don't know")),
    ("Capital of Australia?\nA) Sydney\nB) Canberra", ("Sydney", "(B)", "Canberra")),
    ("Is 91 prime?", ("Yes", "No, 91 = 7 * 13.", "It is not prime.")),
    ("Which team won?", ("New York Yankees", "New York Mets", "The Yankees")),
    ("Name a colour.", ("red or blue", "red", "blue", "Red.")),
    ("How far?", ("5", "5 km", "5 kilometers", "5 miles")),
    ("Anything?", ("", " ", "I cannot answer that.", "No idea", "yes")),
    ("Give JSON.", ('{"a": 1}', '```json\n{"a": 1.0}\n```', '{"a": 2}')),
    ("Language?", ("C", "C++", "C#", "C++.")),
] + [
    (asked, tuple(text for pair in PAIRS if pair["question"] == asked for text in (pair["one"], pair["other"])))
    for asked in dict.fromkeys(pair["question"] for pair in PAIRS)
]

LONG = {
    "grams": ("Adults may take up to {} grams of it on any day, in doses with plenty of water. Whoever drinks alcohol "
              "every evening should ask a doctor first, since the liver suffers. Do not go on for more than 7 days.",
              "4", "40"),
    "years": ("The war was ended by a treaty in {}, after long talks in two towns of Westphalia. It had begun in "
              "Bohemia, drew in Sweden and France, and left parts of Germany without people for 30 years.",
              "1648", "1658"),
    "names": ("{} hosted the talks, since its halls are large, its trains are fast, and its people are used to guests "
              "from everywhere. Delegates met for three weeks and wrote a treaty that all of them signed in the end.",
              "Berlin", "Munich"),
    "formulas": ("First write both terms below one another and compute {} as often as there are rows in the table; "
                 "then put it back into the first line, and go on until nothing changes any more, which takes a while.",
                 "a+b", "a-b"),
    "negations": ("{} the larger of the two tanks, since the smaller one was repaired last year and has stood empty "
                  "since then, and since the valves of both can be reached from the platform without any tools.",
                  "Choose", "Do not choose"),
    "last lines": ("Heat the water.\nAdd {} grams of salt and stir until nothing can be seen of it any more.\nPut in "
                   "the pasta, wait until it is soft but not too soft, and taste it now and then.\n\nServe hot.",
                   "4", "40"),
    "last numbers": ("Heat the oven.\nAdd {} grams of salt and stir until nothing can be seen of it any more.\nPut in "
                     "the dough, wait until it has grown, and look at it at times.\n\nFinally, bake for 30 minutes.",
                     "4", "40"),
}  # fmt: skip
QUESTIONS = (
    "", "What should be done?", "How much may be taken?", "When did it end?", "Where was it?", "Explain it.",
    "Which one should I choose?", "Should I choose the larger tank?", "What is the result?", "Who did it?",
)  # fmt: skip


def told(question: str, answers: tuple[str, ...] | list[str]) -> Record:
    panel = [
        {"member": f"m{i}", "sample": 0, "layer": 1, "content": text, "finish_reason": "stop", "tool_calls": []}
        for i, text in enumerate(answers)
    ]
    record: Any = {"id": "q", "messages": [{"role": "user", "content": question}], "panel": panel}
    return record


def run(stage: Any, record: Record) -> Any:
    async def work() -> Record:
        return await stage(record, Runtime(open_door(Scripted())))  # type: ignore[no-any-return]

    return asyncio.run(work())


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair['one'][:25]!r}-{pair['other'][:25]!r}")
def test_labelled_pairs_are_judged_right(pair: dict[str, Any]) -> None:
    judged = same(pair["question"], pair["one"], pair["other"])

    right = pair["same"] != ((pair["one"], pair["other"]) in WRONG)
    assert judged is right or (judged is None and max(len(pair["one"]), len(pair["other"])) > 80)
    assert same(pair["question"], pair["other"], pair["one"]) is judged
    assert not pair["one"].strip() or same(pair["question"], pair["one"], pair["one"]) is True


def test_few_pairs_are_judged_wrong_and_most_are_known() -> None:
    judged = [same(pair["question"], pair["one"], pair["other"]) for pair in PAIRS]

    assert len(WRONG) <= 0.02 * len(PAIRS)
    assert judged.count(None) == UNKNOWN


@pytest.mark.parametrize("what", LONG)
@pytest.mark.parametrize("question", QUESTIONS)
def test_long_texts_that_differ_in_a_fact_are_never_the_same(what: str, question: str) -> None:
    text, one, other = LONG[what]
    texts = [text.format(one), text.format(other)]

    analysis = run(judge(fixed(JudgeOptions(method="lexical"))), told(question, texts))["analysis"]

    assert not same(question, *texts)
    assert analysis["agreement"] != 1.0
    assert not agree_by_code(question, texts, "auto")


def test_long_texts_that_are_the_same_word_for_word_are_the_same() -> None:
    text, one, _ = LONG["names"]

    assert same("Where?", text.format(one), f"**{text.format(one)}**\n") is True


def test_a_long_answer_says_what_it_concludes() -> None:
    one = (
        "There are 16 eggs every day, three of which are eaten in the morning, while four go into muffins for friends."
    )
    other = "First we subtract the three eggs for breakfast from all sixteen, then the four that are baked with flour."
    asked = "How many of the 16 eggs are left?"

    assert same(asked, f"{one} So 16 - 3 - 4 = 9 eggs remain.", f"{other} Hence there are 9 eggs left over.") is True
    assert same(asked, f"{one} So 16 - 3 = 13 eggs remain.", f"{other} Hence there are 9 eggs left over.") is False
    assert same(asked, f"{one}\n{other}\n\nAnswer: 9", "9") is True
    assert vote_keys([f"{one}\n{other}\n\n**Nine**", "nine"], question=asked) == ("number", ["9", "9"])


@pytest.mark.parametrize(("question", "answers"), PANELS, ids=lambda it: it[:30] if isinstance(it, str) else "")
def test_vote_and_lexical_judge_tell_the_same_story(question: str, answers: tuple[str, ...]) -> None:
    record = told(question, answers)

    voted = run(vote(fixed(VoteOptions())), record).get("answer", {})
    analysis = run(judge(fixed(JudgeOptions(method="lexical"))), record).get("analysis")

    if "vote" not in voted or analysis is None:
        return  # nobody said anything, or only one did
    key, votes = voted["vote"]["key"], read_votes(answers, question=question)
    most = list(voted["vote"]["counts"].values())
    if most.count(most[0]) == 1 and not votes.vague:
        assert votes.keys[analysis["ranking"][0]] == key
    if analysis["agreement"] is not None:
        assert analysis["agreement"] == round(voted["vote"]["votes"] / len(answers), 2)
    assert not votes.vague or analysis["agreement"] is None or len(set(votes.keys)) == 1
    for text in analysis["consensus"] if not votes.vague and max(map(len, answers)) < 80 else []:
        assert votes.keys[[" ".join(answer.split()) for answer in answers].index(text)] == key


def test_the_majority_may_say_it_in_several_ways() -> None:
    record = told("Who wrote Hamlet?", HAMLET)

    voted = run(vote(fixed(VoteOptions())), record)["answer"]

    assert voted["content"] == "William Shakespeare"
    assert voted["vote"]["counts"] == {"shakespeare": 3, "francis bacon": 2}


@pytest.mark.parametrize(
    ("question", "texts", "keys"),
    [
        ("Which team won?", ["New York Yankees", "New York Mets", "Yankees"], ["yankees", "new york mets", "yankees"]),
        ("Which?", ["red or blue", "red", "blue"], ["red or blue", "red", "blue"]),
        ("Which?", ["Paris and Lyon", "Paris", "Lyon"], ["paris and lyon", "paris", "lyon"]),
        ("Who?", ["Leonardo", "da Vinci", "Leonardo da Vinci"], ["da vinci"] * 3),
        ("Who?", ["Bach", "Not Bach"], ["bach", "not bach"]),
        ("Which?", ["Take the red pill", "Take the blue pill"], ["take red pill", "take blue pill"]),
        ("When does it open?", ["9:30", "9:30 am"], ["9:30 am", "9:30 am"]),
        ("How high?", ["29,032 ft (8,849 m)", "8,849 m"], ["8849 m", "8849 m"]),
        ("Did he win?", ["No, he lost.", "He lost the battle."], ["no he lost", "no he lost"]),
        ("Simplify.", ["a+b", "a-b", "b+a"], ["a+b", "a-b", "b+a"]),
        ("Which?", ["C", "C++", "C#"], ["c", "c++", "c#"]),
    ],
)  # fmt: skip
def test_a_cluster_has_one_key(question: str, texts: list[str], keys: list[str]) -> None:
    assert vote_keys(texts, "auto", question)[1] == keys


@given(TEXTS, TEXTS, TEXTS)
def test_sameness_has_no_direction(question: str, one: str, other: str) -> None:
    assert same(question, one, other) is same(question, other, one)


@given(TEXTS, TEXTS)
def test_an_answer_says_the_same_as_itself(question: str, text: str) -> None:
    votes = read_votes([text, text], question=question)

    assert votes.keys[0] == votes.keys[1]
    assert same(question, text, text) is True or votes.keys[0] is None


@given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from(["", OPTIONS, "Who?", "How many?", "Is it so?"]))
def test_every_panel_has_one_story(answers: list[str], question: str) -> None:
    test_vote_and_lexical_judge_tell_the_same_story(question, tuple(answers))


def test_tool_calls_are_compared_by_what_they_call_in_both() -> None:
    record: Any = told("Where?", ["Paris", "", ""])
    for response, arguments in zip(record["panel"][1:], ('{"at": 1}', '{"at":1.0}'), strict=True):
        call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": arguments}}
        response.update(tool_calls=[call], finish_reason="tool_calls")

    analysis = run(judge(fixed(JudgeOptions(method="lexical"))), record)["analysis"]

    assert run(vote(fixed(VoteOptions())), record)["answer"]["response"] == analysis["ranking"][0] == 1
    assert analysis["agreement"] == 0.67


def test_an_unknown_agreement_is_null_and_nothing_is_said_of_it() -> None:
    text, one, other = LONG["names"]

    judged = run(judge(fixed(JudgeOptions(method="lexical"))), told("Where?", [text.format(one), text.format(other)]))

    schemas.check_record(judged)
    assert judged["analysis"]["agreement"] is None
    assert "agreement" not in record_as_text(judged, verbose=True)


#: What the patterns for questions look for, and what may stand around it.
ASKED = [
    *agreement.NAME_WORDS,
    *agreement.FACT_WORDS,
    *agreement.NUMBER_HINTS,
    *CODE_WORDS,
    "what is the",
    "ist",
    "phone",
]
AROUND = [" ", " ", " ", ".", "-", "_", "'s ", "1", "5", "e", "x", "old", "many", "viel", "é", "\u0e31"]


@given(st.lists(st.sampled_from([*ASKED, *AROUND]), max_size=12).map("".join))
def test_a_question_is_read_as_its_patterns_say_whatever_is_looked_for_before_them(question: str) -> None:
    asked = agreement.ask(question)

    assert asked.name == bool(agreement.ASKS_NAME.search(asked.text))
    assert asked.fact == bool(agreement.ASKS_FACT.search(asked.text))
    assert asked.number == bool(agreement.TWO_NUMBERS.search(asked.text) or agreement.ASKS_NUMBER.search(asked.text))
    assert asks_code(asked) == bool(ASKS_CODE.search(asked.text))


@given(st.text(alphabet="ax1 \n-+=/.é", max_size=30))
def test_formulas_are_those_that_the_pattern_finds_anywhere(text: str) -> None:
    assert agreement.formulas(text) == agreement.FORMULA.findall(text)


def test_an_answer_that_only_says_what_it_is_not_has_a_vote_of_its_own() -> None:
    kind, keys = vote_keys(["Answer: , not red", "Answer: blue", "Answer: green"], "auto", "Which colour is it?")

    assert kind == "text"
    assert len(set(keys)) == 3
