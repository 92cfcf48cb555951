"""Edits that change what they say and not a byte beside."""

from __future__ import annotations

import pytest

from fusiontools.runs.agent.exact_edits import EditRefused, apply_hunks, diff_of, parse_patch, replace_exact


@pytest.mark.parametrize(
    ("data", "old", "new", "after"),
    [
        (b"a\r\nb\r\nc\r\n", "a\nb", "a\nB\nx", b"a\r\nB\r\nx\r\nc\r\n"),
        (b"a\r\nb\nc\r\n", "a\nb\nc", "a\nB\nc", b"a\r\nB\nc\r\n"),  # mixed ends stay mixed
        (b"a\nb\r\nc\n", "a\nb\nc", "b\nc", b"b\r\nc\n"),
        (b"\tif x:\n\t\ty = 1   \n", "y = 1", "y = 2", b"\tif x:\n\t\ty = 2   \n"),  # tabs and trailing blanks
        (b"x = 1", "x = 1", "x = 2", b"x = 2"),  # no last line end
        (b"x = 1", "x = 1", "x = 1\ny", b"x = 1\ny"),
        (b"a\r\nx", "x", "x\ny", b"a\r\nx\r\ny"),
        ("\ufeffa\r\nb\r\n".encode(), "a\nb", "a\nc", "\ufeffa\r\nc\r\n".encode()),  # a byte-order mark and CRLF
        ("say ‘hi’".encode(), "‘hi’", "'hi'", b"say 'hi'"),  # code point for code point
        (b"say 'hi'", "'hi'", "‘hi’", "say ‘hi’".encode()),
        (b"caf\xe9 = 1\n", "= 1", "= 2", b"caf\xe9 = 2\n"),  # cp1252 stays cp1252
        (b"a.c abc", "a.c", "x", b"x abc"),  # it is no pattern
    ],
)
def test_an_edit_changes_what_it_says_and_no_other_byte(data: bytes, old: str, new: str, after: bytes) -> None:
    assert replace_exact(data, old, new) == (after, 1)


@pytest.mark.parametrize(
    ("data", "old", "new", "said"),
    [
        (b"one\nx = 1\ntwo\nx = 1\n", "x = 1", "y", "2 times, in lines 2, 4"),
        (b"a\nb\nc\na\nb\n", "a\nb", "y", "2 times, in lines 1, 4"),  # also where it spans lines
        (b"aaa\n", "aa", "b", "2 times, in lines 1, 1"),  # also where places overlap
        (b"\tx = 1\n", "    x = 1", "y", "column 1: `old` has a blank, the file has a tab"),
        (b"x = 'a'\n", "x = ‘a’", "y", "`old` has '‘' (U+2018), the file has \"'\" (U+0027)"),
        (b"caf\xe9 = 1\n", "= 1", "= é", "not UTF-8"),
        (b"x", "x", "x", "the same"),
        (b"x", "", "y", "`old` is empty"),
    ],
)
def test_what_is_not_there_once_is_refused_with_what_helps(data: bytes, old: str, new: str, said: str) -> None:
    with pytest.raises(EditRefused) as refused:
        replace_exact(data, old, new)

    assert said in str(refused.value)


def test_all_places_are_changed_where_all_are_meant_and_they_are_counted() -> None:
    assert replace_exact(b"a b a\r\na", "a", "c", every=True) == (b"c b c\r\nc", 3)


PATCH = """\
diff --git a/app.py b/app.py
--- a/app.py
+++ b/app.py
@@ -99,3 +99,4 @@ somewhere
 one
-two
+TWO
+2.5

@@ -1 +1 @@
-gone
--- /dev/null
+++ b/new.py
@@ -0,0 +1,2 @@
+first
+
--- a/old.py
+++ /dev/null
@@ -1 +0,0 @@
-bye
"""


def test_a_patch_is_read_by_its_lines_whatever_numbers_it_gives() -> None:
    app, new, old = parse_patch(PATCH)

    assert (app.before, app.after, new.before, new.after, old.after) == ("app.py", "app.py", None, "new.py", None)
    assert apply_hunks(b"zero\r\none\r\ntwo\r\nthree\r\ngone\r\n", app.hunks) == (
        b"zero\r\none\r\nTWO\r\n2.5\r\nthree\r\n"
    )
    assert new.hunks == [([], ["first", ""])]
    assert old.hunks == [(["bye"], [])]


def test_a_hunk_stands_for_whole_lines_and_must_stand_there_once() -> None:
    [patch] = parse_patch("--- a/x\n+++ b/x\n@@ @@\n-x = 1\n+x = 2\n")

    assert apply_hunks(b"max = 1\nx = 1\n", patch.hunks) == b"max = 1\nx = 2\n"
    assert apply_hunks(b"max = 1\r\nx = 1\r\ny\r\n", [(["x = 1"], [])]) == b"max = 1\r\ny\r\n"
    for data, said in ((b"x = 3\n", "hunk 1: `old` does not stand"), (b"x = 1\nx = 1\n", "2 times, in lines 1, 2")):
        with pytest.raises(EditRefused, match=said):
            apply_hunks(data, patch.hunks)


@pytest.mark.parametrize("text", ["", "hello", "--- a/x\n+++ b/x\n", "--- /dev/null\n+++ /dev/null\n@@ @@\n+x"])
def test_what_is_no_patch_is_said_to_be_none(text: str) -> None:
    with pytest.raises(EditRefused):
        parse_patch(text)


def test_a_diff_says_what_kind_of_change_it_is() -> None:
    assert diff_of("x", b"a\nb\n", b"a\nc\n") == "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    assert diff_of("x", b"a", b"a\n").endswith("-a\n\\ No newline at end of file\n+a\n")
    assert diff_of("x", None, b"\0").startswith("--- /dev/null\n+++ b/x\n(0 bytes before, 1 after)")
    assert "only line ends" in diff_of("x", b"a\n", b"a\r\n")
