"""What counts as agreement between answers, and what is said of them without a model."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers import normalize
from fusiontools.answers.agreement import ask, read
from fusiontools.answers.lexical import agreement, analyse, cluster, is_short, rank, same
from fusiontools.record.types import Analysis

#: Labelled by hand: question, two answers, whether they agree; `misjudged` marks what the comparison gets wrong.
PAIRS = [json.loads(line) for line in (Path(__file__).parent / "agreement.jsonl").read_text("utf-8").splitlines()]

APOLLO = (
    "Apollo 11 landed on the Moon in July 1969. About 600 million people watched the landing on television. "
    "Neil Armstrong stepped out first.",
    "The landing was in July 1969. About 650 million people watched the landing on television. "
    "Buzz Aldrin followed Neil Armstrong down the ladder.",
    "- **Apollo 11** landed on the Moon in July 1969.\n- Michael Collins stayed in orbit aboard Columbia.\n"
    "```\nprint('code makes no point at all')\n```\n| a table | makes none | either |",
)
NAMES = ("a", "b", "c", "d")

WORDS = st.sampled_from(
    ["Paris", "Lyon", "42", "1,000", "yes", "not", "B)", "Answer:", "\\boxed{", "北京", "3/4", "\n"]
)
TEXTS = st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=8).map(" ".join))
ANSWERS = st.lists(TEXTS, max_size=6)


def analysed(question: str, *answers: str, confidence: list[float | None] | None = None) -> dict[str, Any]:
    return analyse(question, NAMES[: len(answers)], answers, confidence or [None] * len(answers))


def sentences(count: int, stem: str) -> str:
    """Return sentences of three words each that share none."""
    return " ".join(f"{x.upper()}{stem} {x}{x}{stem} {x}i{stem}." for x in "bcdfghjklmnpqrstvwxz"[:count])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair['one'][:25]!r}-{pair['other'][:25]!r}")
def test_labelled_pairs_are_judged_as_recorded(pair: dict[str, Any]) -> None:
    judged = same(pair["question"], pair["one"], pair["other"])

    assert judged == (pair["same"] != pair.get("misjudged", False))


def test_at_least_97_of_100_labelled_pairs_are_judged_right() -> None:
    wrong = [pair for pair in PAIRS if pair.get("misjudged")]

    assert len(wrong) <= 0.03 * len(PAIRS)


@pytest.mark.parametrize("pair", PAIRS[::7], ids=lambda pair: pair["one"][:25])
def test_agreement_has_no_direction(pair: dict[str, Any]) -> None:
    there = same(pair["question"], pair["one"], pair["other"])

    assert there == same(pair["question"], pair["other"], pair["one"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", Fraction(1000)),
        ("1'000", Fraction(1000)),
        ("1e3", Fraction(1000)),
        ("1.0", Fraction(1)),
        ("007", Fraction(7)),
        ("3/4", Fraction(3, 4)),
        ("0.75", Fraction(3, 4)),
        ("-.5", Fraction(-1, 2)),
        ("3,5", Fraction(7, 2)),
        ("1.234,56", Fraction(123456, 100)),
        ("1.000.000", Fraction(10**6)),
        ("-$5", Fraction(-5)),
    ],
)
def test_a_number_is_read_exactly(text: str, value: Fraction) -> None:
    pair = normalize.rational(text)

    assert pair is not None
    assert Fraction(*pair) == value


@pytest.mark.parametrize("text", ["", "-", "3/0", "1e999", "12:30", "1.2.3", "five", "9" * 5000, "٣" * 70])
def test_what_is_no_plain_number_is_not_read_as_one(text: str) -> None:
    assert normalize.rational(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3-5 or -5", ["3", "5", "or", "-5"]),
        ("x-5 = −5", ["x", "5", "-5"]),
        ("10² km²", ["100", "km2"]),
        ("6.02 × 10^23", [f"602{'0' * 21}"]),
        ("2.5 million", ["2500000"]),
        ("1,2,3", ["1", "2", "3"]),
        ("It isn't Ada's_idea", ["it", "is", "not", "ada", "idea"]),
        ("ＡＢＣ é ß ٣٤", ["abc", "e", "ss", "34"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("東京です", ["東京"]),
        ("中华民国", ["中华", "华民", "民国"]),
    ],
)
def test_text_becomes_words_and_canonical_numbers(text: str, words: list[str]) -> None:
    assert normalize.tokens(normalize.fold(text)) == words


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "1/2"),
        ("thoughts\n#### 42", "42"),
        ("#### A heading\ntext", None),
        ("**Answer:** 42. Because 6*7 is.", "42"),
        ("First the answer is 3. No, wait: the answer is 4 because I erred.", "4"),
        ("The answer is J. K. Rowling. She wrote it.", "j. k. rowling"),
        ("答案是北京。", "北京"),
        ("The answer: " + "a long story " * 9, None),
    ],
)
def test_the_last_stated_result_is_the_answer(text: str, result: str | None) -> None:
    assert normalize.stated(normalize.fold(text)) == result


def test_a_stated_result_outweighs_the_text_around_it() -> None:
    assert same("How many?", "I count 3 and 4 and 5.\n\nAnswer: 12", "12")


def test_no_one_is_not_a_no() -> None:
    assert [normalize.yes_no(text) for text in ("no one knows", "no. 5", "no-brainer", "no, never")] == [
        "",
        "",
        "",
        "no",
    ]


def test_a_letter_before_a_point_is_an_initial_unless_offered() -> None:
    assert normalize.choice("a. lincoln", "who was it?") == ("", "a. lincoln")
    assert normalize.choice("a. lincoln", "a. lincoln b. grant") == ("a", "lincoln")


def test_long_texts_do_not_differ_by_the_numbers_they_mention() -> None:
    story = "Whales are large mammals of the oceans; they breathe air, sing, migrate and raise their calves for long. "
    one, other = f"{story}Some were seen near Norway in the spring of 1998.", f"{story}There are 90 species."

    assert same("Tell me about whales.", one, other)
    assert same("Tell me about whales.", one * 2, other * 2)


def test_empty_answers_agree_with_nothing() -> None:
    assert cluster("?", ["", "  ", ""]) == [[0], [1], [2]]
    assert agreement("?", ["", "", "yes"]) == 0.33


def test_agreement_of_nothing_is_0_and_of_one_is_1() -> None:
    assert agreement("?", []) == 0.0
    assert agreement("?", ["only"]) == 1.0


def test_the_largest_cluster_comes_first_and_a_tie_goes_to_the_earliest() -> None:
    assert cluster("Capital?", ["Lyon", "Paris", "It is Paris."]) == [[1, 2], [0]]
    assert cluster("Capital?", ["Nice", "Paris", "Lyon"]) == [[0], [1], [2]]


def test_ranking_goes_by_cluster_then_confidence_then_position() -> None:
    assert rank([[1, 2, 4], [0, 3]], [-0.1, None, -2.0, -0.1, -1.0]) == [4, 2, 1, 0, 3]


def test_an_unreadable_confidence_counts_as_unknown() -> None:
    assert rank([[0, 1]], [float("nan"), -9.0]) == [1, 0]


def test_empty_answers_are_ranked_last() -> None:
    assert analysed("Capital?", "", "Paris", "Lyon")["ranking"] == [1, 2, 0]


def test_short_answers_that_differ_are_one_contradiction_on_the_question() -> None:
    analysis = analysed("Capital of France?", "Paris", "Lyon", "It is Paris.", confidence=[-0.5, -0.1, -0.2])

    assert analysis == {
        "consensus": ["It is Paris."],
        "contradictions": [
            {
                "topic": "Capital of France?",
                "stances": [
                    {"model": "a", "stance": "Paris"},
                    {"model": "b", "stance": "Lyon"},
                    {"model": "c", "stance": "It is Paris."},
                ],
            }
        ],
        "partial_coverage": [],
        "unique_insights": [],
        "blind_spots": [],
        "ranking": [2, 0, 1],
    }


def test_short_answers_that_agree_are_only_a_consensus() -> None:
    analysis = analysed("Capital of France?", "Paris", "It is Paris.")

    assert analysis["consensus"] == ["Paris"]
    assert analysis["contradictions"] == []


def test_one_answer_is_no_consensus() -> None:
    assert analysed("Capital?", "Paris")["consensus"] == []
    assert analysed("Capital?", "Paris")["unique_insights"] == [{"model": "a", "insight": "Paris"}]


def test_long_answers_are_analysed_sentence_by_sentence() -> None:
    analysis = analysed("Describe the landing of Apollo 11 and its geological experiments.", *APOLLO)

    assert analysis["consensus"] == ["Apollo 11 landed on the Moon in July 1969."]
    assert analysis["contradictions"] == [
        {
            "topic": "people watched landing television",
            "stances": [
                {"model": "a", "stance": "About 600 million people watched the landing on television."},
                {"model": "b", "stance": "About 650 million people watched the landing on television."},
            ],
        }
    ]
    assert [insight["model"] for insight in analysis["unique_insights"]] == ["a", "b", "c"]
    assert analysis["blind_spots"] == ["No answer mentions: geological, experiments"]


def test_a_point_of_half_the_members_is_partial_coverage() -> None:
    shared = "Tabs let every reader choose the width of a level."
    others = ("Spaces look identical in every viewer.", "Formatters decide it for you anyway, such as gofmt does.")
    analysis = analysed("Tabs, please?", *(f"{text} {'Well. ' * 30}" for text in (shared, shared, *others)))

    assert {"models": ["a", "b"], "point": shared} in analysis["partial_coverage"]


def test_a_sentence_and_its_denial_contradict() -> None:
    tail = " Everything else about the matter has been told so often that none of it need be repeated. I rest. Really."
    analysis = analysed(
        "Tell me.", f"Ibuprofen thins blood after surgery.{tail}", f"Ibuprofen never thins blood after surgery.{tail}"
    )

    assert [entry["topic"] for entry in analysis["contradictions"]] == ["Ibuprofen thins blood after surgery"]


def test_long_answers_with_different_results_contradict() -> None:
    text = "We add the numbers one after another and check the sum twice, as one should. " * 4
    analysis = analysed("What is the sum?", f"{text}\nAnswer: 41", f"{text}\nAnswer: 42", f"{text}\nAnswer: 42")

    assert [stance["stance"] for stance in analysis["contradictions"][0]["stances"]] == ["41", "42", "42"]


def test_everyone_has_a_turn_among_the_insights() -> None:
    analysis = analysed("What orbits?", sentences(20, "alo"), sentences(2, "urn") + " Well." * 30)

    assert [insight["model"] for insight in analysis["unique_insights"]] == ["a", "b", "a", "b", "a", "a", "a", "a"]


def test_lists_and_texts_are_capped() -> None:
    analysis = analysed("Q" * 999, sentences(20, "al" * 52), "Answer: B", "Answer: C")

    assert len(analysis["unique_insights"]) == 8
    assert {len(insight["insight"]) for insight in analysis["unique_insights"] if insight["model"] == "a"} == {300}
    assert len(analysis["contradictions"][0]["topic"]) == 120


def test_short_means_two_sentences_and_30_words() -> None:
    assert is_short(["Paris. It lies on the Seine.", ""])
    assert not is_short(["One thing. Another thing. A third thing."])
    assert not is_short(["word " * 31])


def test_only_the_head_and_the_tail_of_an_answer_are_read() -> None:
    padding = "lorem ipsum " * 5_000
    asked = ask("?")

    assert read(asked, f"{padding}middle {padding}end") == read(asked, f"{padding}other {padding}end")


@pytest.mark.parametrize(
    "piece",
    [" ", "\n", "1", "1,", "answer ", "answer:*", "\\boxed{", "\\frac{", "- ", "1. ", "(", "'", "北", "!", ".\t", "^{"],
)
def test_no_text_makes_a_pattern_backtrack_for_long(piece: str) -> None:
    text = f"x{piece * (50_000 // len(piece))}x"

    started = time.process_time()
    analysed(text, text, f"{text}y", f"Answer: {text}")

    assert time.process_time() - started < 20


def test_analysing_twenty_long_answers_is_bounded() -> None:
    answers = [
        " ".join(f"Word{n * k % 977} meets thing{n * k % 613} near place{n}." for n in range(1500)) for k in range(20)
    ]

    started = time.process_time()
    analyse("What meets what?", [str(k) for k in range(20)], answers, [None] * 20)

    assert time.process_time() - started < 20


@given(TEXTS, ANSWERS)
def test_clusters_partition_the_positions(question: str, answers: list[str]) -> None:
    clusters = cluster(question, answers)

    assert sorted(position for group in clusters for position in group) == list(range(len(answers)))
    assert clusters == sorted(clusters, key=lambda group: (-len(group), group[0]))


@given(TEXTS, ANSWERS, st.randoms(use_true_random=False))
def test_a_permutation_of_the_answers_permutes_the_clusters(question: str, answers: list[str], random: Any) -> None:
    order = list(range(len(answers)))
    random.shuffle(order)

    moved = cluster(question, [answers[position] for position in order])

    assert {frozenset(order[at] for at in group) for group in moved} == set(map(frozenset, cluster(question, answers)))


@given(TEXTS, ANSWERS)
def test_agreement_is_a_share(question: str, answers: list[str]) -> None:
    assert 0.0 <= agreement(question, answers) <= 1.0


@given(TEXTS, TEXTS, TEXTS)
def test_any_two_texts_agree_both_ways_or_not_at_all(question: str, one: str, other: str) -> None:
    assert same(question, one, other) == same(question, other, one)


@given(TEXTS, ANSWERS, st.booleans(), st.lists(st.none() | st.floats(), min_size=6, max_size=6))
def test_every_analysis_has_the_shape_of_the_record(
    question: str, answers: list[str], long: bool, confidence: list[float | None]
) -> None:
    told = [
        f"{answer}. A sentence with a few more words follows here. {answer} " * (9 if long else 1) for answer in answers
    ]
    names = [f"m{position}" for position in range(len(told))]

    analysis = analyse(question, names, told, confidence[: len(told)])

    assert list(analysis) == [key for key in Analysis.__annotations__ if key in analysis]
    assert sorted(analysis["ranking"]) == list(range(len(told)))
    assert all(isinstance(text, str) for key in ("consensus", "blind_spots") for text in analysis[key])
    assert all(set(entry) == {"topic", "stances"} and len(entry["stances"]) > 1 for entry in analysis["contradictions"])
    assert all({"model", "stance"} == set(s) for entry in analysis["contradictions"] for s in entry["stances"])
    assert all(set(entry) == {"models", "point"} and len(entry["models"]) > 1 for entry in analysis["partial_coverage"])
    assert all(set(entry) == {"model", "insight"} and entry["model"] in names for entry in analysis["unique_insights"])


@given(st.text(alphabet="0123456789.,'/e+-$ :%", max_size=80))
def test_a_canonical_number_is_its_own_canonical_form(text: str) -> None:
    numbers = normalize.tokens(normalize.fold(text))

    assert [normalize.canonical(number) for number in numbers] == numbers


def test_long_answers_with_other_figures_do_not_agree() -> None:
    told = (
        "The company went public in {} at a price of {} dollars a share, and raised {} million dollars in its initial "
        "public offering. It had been founded some years before, in a garage, as an online bookstore, and grew quickly "
        "afterwards into all kinds of other goods."
    )
    asked = "When did the company go public, and what did it raise?"

    assert agreement(asked, [told.format(1997, 18, 54), told.format(1997, 18, 54)]) == 1.0
    assert agreement(asked, [told.format(1997, 18, 54), told.format(1999, 22, 84)]) == 0.5
