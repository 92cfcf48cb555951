"""What goes with a question: files, pictures, prompt files; and the conversation it belongs to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from terminal import everything, on_a_terminal
from workdir import Run, Upstream

from fusiontools.cli.given import PromptFile, attachment, file_text, fill_prompt, load_prompt, looks_seen
from fusiontools.errors import UsageError

COPY = ["--chain", "panel -m fake/a | synth --method copy"]


@pytest.mark.parametrize(
    ("name", "begins", "part"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", "data:image/png;base64,"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "data:image/jpeg;base64,"),
        ("a.gif", b"GIF89a", "data:image/gif;base64,"),
        ("a.bin", b"RIFF\x00\x00\x00\x00WEBP", "data:image/webp;base64,"),
    ],
)
def test_a_picture_is_known_by_how_it_begins(name: str, begins: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(begins)

    assert attachment(str(path))["image_url"]["url"].startswith(part)
    assert looks_seen(str(path))


def test_a_pdf_is_a_file_and_an_address_is_left_to_the_endpoint(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\n")

    assert attachment(str(tmp_path / "a.pdf"))["file"] == {
        "filename": "a.pdf",
        "file_data": "data:application/pdf;base64,JVBERi0xLjcK",
    }
    assert attachment("https://x.example/p/a.PDF?v=1")["file"]["file_data"] == "https://x.example/p/a.PDF?v=1"
    assert attachment("https://x.example/a")["image_url"] == {"url": "https://x.example/a"}


def test_what_is_no_picture_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hello.")

    with pytest.raises(UsageError, match="neither a PNG, JPEG, GIF or WebP nor a PDF; a text goes with -f"):
        attachment(str(tmp_path / "a.txt"))


def test_no_text_ends_its_own_fence(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("```\n`````\n")

    assert file_text(str(tmp_path / "a.md")) == "a.md:\n\n``````\n```\n`````\n``````"


def test_places_are_filled_once_and_the_question_stands_in_its_own_or_below() -> None:
    prompt = PromptFile("p", "In {{lang}}: {{ question }}", "Speak {{lang}}.")

    assert fill_prompt(prompt, ["lang={{question}}"], "Why?") == ("In {{question}}: Why?", "Speak {{question}}.")
    assert fill_prompt(PromptFile("p", "Explain.", None), [], "Why?") == ("Explain.\n\nWhy?", None)
    assert fill_prompt(PromptFile("p", "Explain.", None), [], "") == ("Explain.", None)


@pytest.mark.parametrize(
    ("said", "question", "why"),
    [
        ([], "Why?", "--template p: give -p lang=…"),
        (["lang=x", "long=y"], "Why?", "-p long: p has no such place; did you mean 'lang'?"),
        (["lang"], "Why?", "-p lang: write KEY=VALUE"),
        (["lang=x"], " ", "--template p: it needs a question"),
    ],
)
def test_what_a_prompt_file_lacks_is_said(said: list[str], question: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        fill_prompt(PromptFile("p", "In {{lang}}: {{question}}", None), said, question)

    assert refused.value.message == why


def test_a_prompt_file_may_have_sections(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("# system\nBe kind.\n\n# user\n\nAsk.\n")

    assert load_prompt(str(tmp_path / "p.md")) == (str(tmp_path / "p.md"), "Ask.", "Be kind.")


def test_all_of_it_reaches_the_members(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "config" / "fusiontools" / "prompts"
    folder.mkdir(parents=True)
    (folder / "sum.md").write_text("# system\nSpeak {{lang}}.\n# user\nSum up:")
    (tmp_path / "a.txt").write_text("A text.")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    given = ["--template", "sum", "-p", "lang=French", "-f", "a.txt", "-a", "a.png"]

    result = run(["fuse-ask", *COPY, *given, "This."])

    assert result.status == 0, result.err
    system, asked = upstream.bodies("fake/a")[0]["messages"]
    assert system == {"role": "system", "content": "Speak French."}
    assert [part["type"] for part in asked["content"]] == ["image_url", "text"]
    assert asked["content"][1]["text"] == "Sum up:\n\nThis.\n\na.txt:\n\n```\nA text.\n```"


def test_the_last_question_on_a_terminal_can_be_gone_on_with(
    run: Run, upstream: Upstream, env: dict[str, str], tmp_path: Path
) -> None:
    for question in ("Before?", "One?"):
        with on_a_terminal(["fuse-ask", *COPY, question], env, tmp_path, stdin=subprocess.DEVNULL) as (ours, _):
            everything(ours)

    result = run(["fuse-ask", *COPY, "--continue", "--json", "Two?"])

    [record] = result.records
    asked: list[Any] = [m["content"] for m in record["messages"] if m["role"] == "user"]
    assert asked == ["One?", "Two?"]
    [kept] = (tmp_path / "home" / "state" / "fusiontools" / "sessions").glob("*.jsonl")
    assert [json.loads(line)["id"] for line in kept.read_bytes().splitlines()][1] == record["id"]


def test_a_question_of_a_script_is_kept_nowhere(run: Run, tmp_path: Path) -> None:
    run(["fuse-ask", *COPY, "One?"])

    assert run(["fuse-ask", *COPY, "--continue", "Two?"]).status == 2
