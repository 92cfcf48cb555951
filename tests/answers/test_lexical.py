"""What counts as agreement between answers, and what is said of them without a model."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers import lexical
from fusiontools.answers.keys import read_votes
from fusiontools.answers.lexical import agreement_share, analyse, clusters_of, is_short, rank
from fusiontools.record.types import Analysis

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
    votes = read_votes(answers, question=question)
    return analyse(question, NAMES[: len(answers)], answers, confidence or [None] * len(answers), votes)


def cluster(question: str, answers: list[str]) -> list[list[int]]:
    return clusters_of(read_votes(answers, question=question))


def agreement(question: str, answers: list[str]) -> float | None:
    return agreement_share(read_votes(answers, question=question))


def sentences(count: int, stem: str) -> str:
    """Return sentences of three words each that share none."""
    return " ".join(f"{x.upper()}{stem} {x}{x}{stem} {x}i{stem}." for x in "bcdfghjklmnpqrstvwxz"[:count])


def test_empty_answers_agree_with_nothing() -> None:
    assert cluster("?", ["", "  ", ""]) == [[0], [1], [2]]
    assert agreement("?", ["", "", "yes"]) == 0.33


def test_agreement_of_nothing_is_0_and_of_one_is_1() -> None:
    assert agreement("?", []) == 0.0
    assert agreement("?", ["only"]) == 1.0


def test_the_largest_cluster_comes_first_and_a_tie_goes_to_the_earliest() -> None:
    assert cluster("Capital?", ["Lyon", "Paris", "It is Paris."]) == [[1, 2], [0]]
    assert cluster("Capital?", ["Nice", "Paris", "Lyon"]) == [[0], [1], [2]]


def test_those_who_do_not_know_are_no_majority() -> None:
    answers = ["I don't know.", "Paris", "I cannot answer that.", "No idea", "It is Paris."]

    assert cluster("Capital?", answers) == [[1, 4], [0, 2, 3]]
    assert agreement("Capital?", answers) == 0.4
    assert analysed("Capital?", *answers[:4])["ranking"] == [1, 0, 2, 3]


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


STORY = "{} hosts the fair every {} spring, and its halls are {} full of guests from all over the continent by then."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Berlin", "4th", "quite"), ("Munich", "4th", "quite")),
        (("Berlin", "4th", "quite"), ("Berlin", "40th", "quite")),
        (("Berlin", "4th", "quite"), ("Berlin", "4th", "not")),
        (("Berlin", "4th", "a+b"), ("Berlin", "4th", "a-b")),
    ],
)
def test_sentences_that_differ_in_a_name_a_number_a_formula_or_a_not_make_no_consensus(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    answers = [f"{STORY.format(*facts)} I have been there. It was fine. Really." for facts in (one, other)]

    assert not [point for point in analysed("Tell me.", *answers)["consensus"] if "hosts" in point]


def test_long_answers_that_share_their_words_are_ranked_as_neighbours() -> None:
    lone = (
        "Tabs suit whoever reads with another width, and keep the file small, as some people say in every debate on it."
    )

    ranking = analysed("Which?", f"{lone} {lone.lower()}", f"{APOLLO[0]} {APOLLO[1]}", f"{APOLLO[0]} {APOLLO[0]}")

    assert ranking["ranking"] == [1, 2, 0]


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
    analyse("What meets what?", [str(k) for k in range(20)], answers, [None] * 20, read_votes(answers))

    assert time.process_time() - started < 20


@given(TEXTS, ANSWERS)
def test_clusters_partition_the_positions(question: str, answers: list[str]) -> None:
    clusters = cluster(question, answers)

    assert sorted(position for group in clusters for position in group) == list(range(len(answers)))
    voting = read_votes(answers, question=question).keys
    assert clusters == sorted(clusters, key=lambda group: (not voting[group[0]], -len(group), group[0]))


@given(TEXTS, ANSWERS, st.randoms(use_true_random=False))
def test_a_permutation_of_the_answers_permutes_the_clusters(question: str, answers: list[str], random: Any) -> None:
    order = list(range(len(answers)))
    random.shuffle(order)

    moved = cluster(question, [answers[position] for position in order])

    assert {frozenset(order[at] for at in group) for group in moved} == set(map(frozenset, cluster(question, answers)))


@given(TEXTS, ANSWERS)
def test_agreement_is_a_share(question: str, answers: list[str]) -> None:
    share = agreement(question, answers)

    assert share is None or 0.0 <= share <= 1.0


@given(TEXTS, ANSWERS, st.booleans(), st.lists(st.none() | st.floats(), min_size=6, max_size=6))
def test_every_analysis_has_the_shape_of_the_record(
    question: str, answers: list[str], long: bool, confidence: list[float | None]
) -> None:
    told = [
        f"{answer}. A sentence with a few more words follows here. {answer} " * (9 if long else 1) for answer in answers
    ]
    names = [f"m{position}" for position in range(len(told))]

    analysis = analyse(question, names, told, confidence[: len(told)], read_votes(told, question=question))

    assert list(analysis) == [key for key in Analysis.__annotations__ if key in analysis]
    assert sorted(analysis["ranking"]) == list(range(len(told)))
    assert all(isinstance(text, str) for key in ("consensus", "blind_spots") for text in analysis[key])
    assert all(set(entry) == {"topic", "stances"} and len(entry["stances"]) > 1 for entry in analysis["contradictions"])
    assert all({"model", "stance"} == set(s) for entry in analysis["contradictions"] for s in entry["stances"])
    assert all(set(entry) == {"models", "point"} and len(entry["models"]) > 1 for entry in analysis["partial_coverage"])
    assert all(set(entry) == {"model", "insight"} and entry["model"] in names for entry in analysis["unique_insights"])


CONTENT = st.sampled_from(
    ["Rome", "Paris", "river", "bridge", "12", "not", "1850", "-3", "x-1", "never", "tower", "market."]
)


@given(st.lists(st.lists(CONTENT, max_size=12).map(" ".join), max_size=4))
def test_no_pair_of_sentences_that_are_alike_or_opposed_is_left_out(answers: list[str]) -> None:
    points = lexical.points_of(answers, range(len(answers)), lexical.Stems())

    near = lexical.neighbours(points)

    for one, others in zip(points, near, strict=True):
        met = [other for other in points if other is not one]
        told = [other for other in met if lexical.alike(one, other) or lexical.opposed(one, other)]
        assert [other for other in others if other in told] == told


@given(st.text(alphabet="aB. !?\n\x1f1_é。！", max_size=40))
def test_a_sentence_ends_with_its_mark_and_the_white_space_behind_it(text: str) -> None:
    ends = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])|(?<=[。！？])")

    assert lexical.sentences_of(text) == ends.split(text)
    assert lexical.capitalised(text) == [word for word in lexical.WORD.findall(text) if word[0].isupper()]


@given(st.lists(st.lists(CONTENT, max_size=8), min_size=2, max_size=2))
def test_texts_share_as_many_bits_as_stems_whatever_else_was_read(texts: list[list[str]]) -> None:
    one, other = ({word.strip(".")[: lexical.STEM_CHARS] for word in text if word[0].isalpha()} for text in texts)
    stems = lexical.Stems()

    bits = [stems.read(" ".join(text)) for text in texts]

    shared = bits[0] & bits[1] & ~(stems.numbers | lexical.DENIED)
    assert shared.bit_count() == len({stem.lower() for stem in one} & {stem.lower() for stem in other})


@given(st.text(alphabet="ab \t\n\x1f\u00a0\u200b\u3000é", max_size=30))
def test_a_shortened_text_has_single_spaces_only(text: str) -> None:
    assert lexical.shorten(text) == " ".join(text.split())
