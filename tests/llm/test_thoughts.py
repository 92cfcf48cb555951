"""What a model thinks is no part of what it answers, however it marks it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.answers.extract import drop_thoughts
from fusiontools.llm.thoughts import ThoughtFilter, closes_unopened, split_thoughts

GPT_OSS = "openai/gpt-oss-20b"
CHANNELS = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>"

THOUGHTS = {
    "<think>hm</think>\n\nParis.": "hm",
    "\n <think>\nhm\n</think>Paris.": "hm",
    "<THINK>hm</THINK>Paris.": "hm",
    "<Think>hm</think >Paris.": "hm",
    "< think >hm< / think >Paris.": "hm",
    "<thinking>hm</thinking>Paris.": "hm",
    "<thought>hm</thought>Paris.": "hm",
    "<seed:think>hm</seed:think>Paris.": "hm",
    "[THINK]hm[/THINK]Paris.": "hm",
    "◁think▷hm◁/think▷Paris.": "hm",
    "<|START_THINKING|>hm<|END_THINKING|>Paris.": "hm",
    "<think></think>\n\nParis.": "",
    "<think>a</think>\n<think>b</think>\nParis.": "a\n\nb",
    "<think>a</think><thinking>b</thinking>Paris.": "a\n\nb",
    "<think>a<think>b</think>c</think>Paris.": "a<think>b\n\nc",
    "hm\n</think>\n\nParis.": "hm",
    "hm</THINKING>Paris.": "hm",
    "hm[/THINK]Paris.": "hm",
    "</think>Paris.": "",
    "a</think>b</think>Paris.": "a\n\nb",
    "a</think><think>b</think>Paris.": "a\n\nb",
    'It is "Paris"</think>Paris.': 'It is "Paris"',
    "Use ```\n</think>\nParis.": "Use ```",
}


@pytest.mark.parametrize("text", THOUGHTS)
def test_thoughts_in_every_spelling_are_kept_apart(text: str) -> None:
    assert split_thoughts(text) == ("Paris.", THOUGHTS[text])
    assert drop_thoughts(text).strip() == "Paris.", "who reads answers knows the same marks"


@pytest.mark.parametrize(
    "text", ["<think>hm", "<think>hm</thi", "hm</think>", "[THINK]", "<thinking>a</think><think>b"]
)
def test_a_thought_without_an_answer_leaves_none(text: str) -> None:
    assert split_thoughts(text)[0] == ""


@pytest.mark.parametrize(
    "text",
    [
        "Write <think>x</think>.",
        "The mark `</think>` ends a thought.",
        'The mark "</think>" ends a thought.',
        "See:\n```\nhm</think>\n```\nDone.",
        '{"mark": "</think> ends it"}',
        "a > b",
        "<thinker>x</thinker>",
        "<div>Paris</div>",
        "[1] Paris",
        " \n Paris.",
        CHANNELS,
    ],
)
def test_what_is_no_thought_stays_as_it_is(text: str) -> None:
    assert split_thoughts(text) == (text, "")


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        (CHANNELS, "hm"),
        ("analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Paris.", "hm"),
        (
            "<|start|>assistant<|channel|>analysis<|message|>h<|end|><|start|>assistant<|channel|>commentary<|message|>m"
            "<|end|><|start|>assistant<|channel|>final <|constrain|>text<|message|>Paris.",
            "hm",
        ),
        ("<|channel|>final<|message|>Paris.", ""),
        ("analysisWe hm.assistantfinalParis.", "We hm."),
        ("Paris.", ""),
        ("Paris.<|return|>", ""),
        ("<think>hm</think>Paris.", "hm"),
    ],
)
def test_channels_are_read_of_a_model_that_speaks_them(text: str, thought: str) -> None:
    assert split_thoughts(text, GPT_OSS) == ("Paris.", thought)


@pytest.mark.parametrize("text", ["<|channel|>analysis<|message|>hm", "analysisWe hm", "<|channel|>analysis"])
def test_a_channel_that_is_not_the_final_one_is_no_answer(text: str) -> None:
    assert split_thoughts(text, GPT_OSS)[0] == ""


def passed_on(pieces: list[str], model: str = "m", *, waits: bool = False) -> str:
    """Return what is passed on of a stream, and what is left of its answer at the end."""
    filtered, whole = ThoughtFilter(model, waits=waits), "".join(pieces)
    shown = "".join(filtered.take(piece) for piece in pieces)
    answer = split_thoughts(whole, model)[0]
    assert shown == filtered.shown
    assert answer.startswith(shown)
    return shown + answer[len(shown) :]


#: Of two thoughts that nobody opened, the second cannot be known for one before it ends.
TWO_UNOPENED = "a</think>b</think>Paris."


@given(st.sampled_from([*(THOUGHTS.keys() - {TWO_UNOPENED}), "Paris.", "<div>Paris", "[1] Paris"]), st.data())
def test_no_thought_is_passed_on_however_a_stream_is_cut(text: str, data: st.DataObject) -> None:
    unopened = closes_unopened(text, split_thoughts(text)[1])
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    pieces = [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]

    assert passed_on(pieces, waits=unopened or text == "</think>Paris.") == split_thoughts(text)[0]


@given(st.sampled_from([CHANNELS, "analysisWe hm.assistantfinalParis.", "Paris."]), st.data())
def test_no_channel_but_the_final_one_is_passed_on(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    pieces = [text[start:end] for start, end in pairwise([0, *sorted(cuts), len(text)])]

    assert passed_on(pieces, GPT_OSS) == "Paris."


def test_an_answer_is_passed_on_at_once() -> None:
    filtered = ThoughtFilter("m")

    assert [filtered.take(piece) for piece in ("\n", "<thi", "nk>h", "m</think>", "\nPa", "ris.")] == [
        "", "", "", "", "Pa", "ris.",
    ]  # fmt: skip
    assert ThoughtFilter(GPT_OSS).take("Paris") == "Paris"


@pytest.mark.parametrize("model", ["deepseek-r1-distill", "qwen3-30b-a3b-thinking", "qwq-32b", "magistral-small"])
def test_a_model_that_is_known_to_think_is_waited_for_unless_its_endpoint_tells_thoughts_apart(model: str) -> None:
    waiting, released = ThoughtFilter(model), ThoughtFilter(model)
    released.release()

    assert [waiting.take(piece) for piece in ("hm", "</think>", "Paris.")] == ["", "", "Paris."]
    assert released.take("Paris.") == "Paris."
