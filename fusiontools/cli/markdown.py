"""An answer's Markdown on a terminal, set block by block while it is being written."""

from __future__ import annotations

import re
import sys
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

from fusiontools.cli.region import Region
from fusiontools.record.clean import CleanStream

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderResult

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


#: What can be read on a light ground and on a dark one: nobody knows which a terminal has. rich puts code on black.
_STYLES = Theme({"markdown.code": "cyan", "markdown.link": "cyan", "markdown.link_url": "underline"})
#: The same for code, by the kind of a word.
_CODE = ANSISyntaxTheme(
    {
        ("Comment",): Style(dim=True),
        ("Keyword",): Style(color="magenta"),
        ("Operator", "Word"): Style(color="magenta"),
        ("Literal", "String"): Style(color="green"),
        ("Literal", "Number"): Style(color="cyan"),
        ("Name", "Function"): Style(bold=True),
        ("Name", "Class"): Style(bold=True),
        ("Name", "Decorator"): Style(bold=True),
        ("Name", "Tag"): Style(bold=True),
        ("Generic", "Deleted"): Style(color="red"),
        ("Generic", "Inserted"): Style(color="green"),
        ("Generic", "Heading"): Style(bold=True),
        ("Generic", "Subheading"): Style(color="magenta"),
    }
)


class LeftHeading(Heading):
    """A title that stands at the left, as the text below it does."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title; the first two levels with a line above them."""
        self.text.justify = "left"
        if self.tag in ("h1", "h2"):
            yield Text("")
        yield self.text


class CloseCode(CodeBlock):
    """Code without a blank line of its own above and below: there is one between all blocks."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the code."""
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 1))


class AnswerMarkdown(Markdown):
    """Markdown whose HTML is text like any other, so that no word of an answer is lost; links show where they lead."""

    elements = {  # noqa: RUF012 - rich's own table
        **Markdown.elements, "heading_open": LeftHeading, "fence": CloseCode, "code_block": CloseCode
    }  # fmt: skip

    def __init__(self, text: str) -> None:
        from markdown_it import MarkdownIt

        super().__init__("", hyperlinks=False, code_theme=_CODE)  # type: ignore[arg-type]
        self.parsed = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).parse(text)


class MarkdownScreen:
    """Where an answer is shown as it is written: whole blocks stay, the one under way is drawn anew as it grows.

    Args:
        file: where it goes instead of standard output; what reads it is a terminal.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        self._console = Console(file=file or sys.stdout, force_terminal=True if file else None, theme=_STYLES)
        self._clean = CleanStream()
        self._pending = ""
        self._begun = False
        self._region: Region | None = None

    def take(self, text: str) -> None:
        """Show more of the answer."""
        self._pending += self._clean.take(text)
        whole = _end_of_whole_blocks(self._pending)
        if whole:
            self._set(self._pending[:whole])
            self._pending = self._pending[whole:]
        if self._pending.strip():
            self._draw()

    def close(self) -> None:
        """Show what is left; the cursor stands on a line of its own then."""
        self._pending += self._clean.finish()
        if self._pending.strip():
            self._set(self._pending)
        self._pending = ""
        self._stop()

    def _set(self, text: str) -> None:
        self._stop()
        if text.strip():
            self._console.print(self._apart(self._lines(text)))
            self._begun = True

    def _draw(self) -> None:
        if self._region is None:
            self._region = Region(self._console, self._tail)
            self._region.start()

    def _tail(self) -> Text:
        """Return the block under way."""
        return self._apart(self._lines(self._pending))

    def _apart(self, block: Text) -> Text:
        """Return a block with the blank line that parts it from the one above."""
        return Text("\n") + block if self._begun else block

    def _lines(self, text: str) -> Text:
        """Return a text as it is set, without blank lines around it."""
        lines = [Text.assemble(*((part.text, part.style or "") for part in line)) for line in self._render(text)]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        while lines and not lines[0].plain.strip():
            lines.pop(0)
        return Text("\n").join(lines)

    def _render(self, text: str) -> list[list[Segment]]:
        return self._console.render_lines(AnswerMarkdown(text), pad=False)

    def _stop(self) -> None:
        if self._region is not None:
            self._region.close()
            self._region = None


def _end_of_whole_blocks(text: str) -> int:
    """Return how much of the text is blocks that no later word can change: up to a blank line outside a fence after
    which something begins at the margin.
    """
    end = at = 0
    fence = ""
    blank = False
    for line in text.splitlines(keepends=True):
        if not fence and blank and line[:1].strip():
            end = at
        opened = _FENCE.match(line)
        if opened and not fence:
            fence = opened[1]
        elif opened and opened[1].startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        blank = not line.strip() and line.endswith("\n")
        at += len(line)
    return end
