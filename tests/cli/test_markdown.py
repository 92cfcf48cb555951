"""An answer's Markdown on a terminal: set, whole, and the same however it came in pieces."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
from samples import panelled, response
from terminal import on_a_terminal, read_screen
from terminal import shown as on_screen
from workdir import Upstream

#: Shows its arguments, one after the other, as pieces of an answer.
SHOW = """
import sys
from fusiontools.cli.markdown import MarkdownScreen
screen = MarkdownScreen()
for piece in sys.argv[1:]:
    screen.take(piece)
screen.close()
"""
ANSWER = (
    "# Title\n\nSome *words*, a [link](https://example.org/x).\n\n- one\n- two\n\n```\na = 1\n\nb = 2\n```\n\nThe end."
)


def shown(env: dict[str, str], folder: Path, pieces: Sequence[str]) -> list[str]:
    """Return the lines that stay, without blanks at their ends."""
    with on_a_terminal([sys.executable, "-c", SHOW, *pieces], env, folder) as (ours, _):
        return on_screen(read_screen(ours)).split("\n")


def test_marks_are_set_and_no_word_is_lost(env: dict[str, str], tmp_path: Path) -> None:
    lines = shown(env, tmp_path, [ANSWER])

    text = "\n".join(lines)
    for word in ("Title", "Some words", "https://example.org/x", "one", "two", "a = 1", "b = 2", "The end."):
        assert word in text
    for mark in ("# ", "*", "```"):
        assert mark not in text
    assert "Title" in lines


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_last_words_stand_at_the_end_however_the_answer_came(
    env: dict[str, str], tmp_path: Path, size: int
) -> None:
    lines = shown(env, tmp_path, [ANSWER[at : at + size] for at in range(0, len(ANSWER), size)])

    assert [line for line in lines if line][-1] == "The end."
    assert "Title" in lines


def test_html_is_text_like_any_other_and_steers_nothing(env: dict[str, str], tmp_path: Path) -> None:
    text = "\n".join(shown(env, tmp_path, ["Use <b>bold</b>\x1b]0;title\x07 here."]))

    assert "<b>bold</b>" in text
    assert "\x07" not in text


def test_words_are_not_cut_where_a_line_ends(env: dict[str, str], tmp_path: Path) -> None:
    words = [f"word{i:03}" for i in range(60)]

    text = " ".join(shown({**env, "COLUMNS": "40"}, tmp_path, [" ".join(words)]))

    assert [word for word in words if word not in text.split()] == []


# A filter at the end of a pipe


@pytest.mark.parametrize(("options", "title"), [("", "Title"), (" --plain", "# Title")], ids=["set", "plain"])
@pytest.mark.parametrize("tool", ["fuse-synth -m fake/s", "fuse-vote"], ids=["as it comes", "whole"])
def test_a_filter_sets_the_answer_that_it_shows_on_a_terminal(
    env: dict[str, str], tmp_path: Path, upstream: Upstream, tool: str, options: str, title: str
) -> None:
    marked = "# Title\n\nSome *words*."
    upstream.script("fake/s", f"text={quote(marked)}")
    panel = [response("fake/a", marked), response("fake/b", marked)]
    (tmp_path / "panel.jsonl").write_text(json.dumps(panelled(responses=panel)))

    with on_a_terminal([*f"{tool}{options} -q".split(), "panel.jsonl"], env, tmp_path) as (ours, _):
        lines = on_screen(read_screen(ours)).split("\n")

    said = [line.strip() for line in lines if line.strip()]
    assert said == [title, "Some *words*." if options else "Some words."]
