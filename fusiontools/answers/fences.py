"""The programs in an answer: the blocks that stand between fences, however a model has set them."""

from __future__ import annotations

import re
import textwrap
import warnings

#: A fence that opens a block: alone, in a list item, in a quote, or behind words that end in a colon or a full stop.
_OPENING = re.compile(
    r"(?P<quote>(?:[ \t]*>)*)[ \t]*(?:(?:[-*+•]|\d{1,3}[.)])[ \t]+|[^`~\n]*?[:.][ \t]*)?"
    r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^`\n]*$"
)
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]?)+")


def fenced_blocks(text: str, languages: frozenset[str] | None = None) -> tuple[list[str], int]:
    """Return the blocks of a text, and how many others there are.

    A fence may stand in a list item, in a quote or behind words; of one that only closes, what stands above it is the
    block, and one that only opens goes on to the end.

    Args:
        languages: those in which a block may call itself written; None takes any.
    """
    blocks: list[str] = []
    others = 0
    block: list[str] = []
    fence = language = quote = ""
    for line in text.split("\n"):
        if fence:
            bare = _QUOTE.sub("", line) if quote else line
            if _is_closing(bare, fence):
                others += _take(blocks, block, language, languages)
                fence, block = "", []
            else:
                block.append(bare)
            continue
        opening = _OPENING.match(line)
        if opening is None:
            block.append(line)
        elif _is_closing(line, opening["fence"]) and not blocks and not others and _is_program(block):
            # Its opening was left out.
            others += _take(blocks, block, "", languages)
            block = []
        else:
            fence, language, quote = opening["fence"], opening["language"].lower(), opening["quote"].strip()
            block = []
    if fence:
        others += _take(blocks, block, language, languages)
    return blocks, others


def _take(blocks: list[str], block: list[str], language: str, languages: frozenset[str] | None) -> int:
    """Add a block where it is in one of the languages; return how many others that makes."""
    if not any(line.strip() for line in block):
        return 0
    if languages is not None and language not in languages:
        return 1
    blocks.append(_dedent("\n".join([*block, ""])))
    return 0


def _is_closing(line: str, fence: str) -> bool:
    return re.fullmatch(rf"[ \t]*{re.escape(fence)}[`~]*[ \t]*", line) is not None


def _is_program(block: list[str]) -> bool:
    """Say whether the lines above a lone fence are a program, and no prose before a block."""
    text = _dedent("\n".join(block))
    return bool(text.strip()) and is_python(text)


def _dedent(block: str) -> str:
    """Return a block that begins with a definition without its indent: it stands in a list."""
    opens = re.match(r"\s*\n?[ \t]+(?:(?:async )?def|class|import|from|@)\b", block)
    return textwrap.dedent(block) if opens else block


def is_python(text: str) -> bool:
    """Say whether a text compiles: unlike parsing, that finds a `return` outside of a function."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<text>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
