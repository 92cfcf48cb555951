"""Tables for a person: laid out by rich, as plain text as wide as what it holds unless a terminal bounds it."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fusiontools.record.clean import clean

if TYPE_CHECKING:
    from rich.text import Text

#: Wider than any table: what is no terminal does not fold lines.
_UNBOUNDED = 1 << 20


class Styled(NamedTuple):
    """A cell in a colour, where there are any."""

    text: str
    style: str


Cell = str | Styled


def table_text(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    left: Collection[int],
    folding: int = 0,
    colour: bool = False,
    width: int | None = None,
) -> str:
    """Return a table as lines of text.

    Args:
        left: the columns that are texts; the others are numbers.
        folding: the column that takes several lines where all is too wide.
        width: of the screen; None where nothing bounds a line.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for i, name in enumerate(head):
        table.add_column(
            Text(name), justify="left" if i in left else "right", no_wrap=i != folding, overflow="fold", min_width=1
        )
    for row in rows:
        table.add_row(*map(_cell, row))
    out = io.StringIO()
    console = Console(
        file=out, width=width or _UNBOUNDED, color_system="standard" if colour else None, force_terminal=colour
    )
    console.print(table)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def screen_width() -> int | None:
    """Return how wide the terminal on standard output is; None where there is none."""
    return os.get_terminal_size(1).columns if os.isatty(1) else None


def _cell(cell: Cell) -> Text:
    from rich.text import Text

    text, style = cell if isinstance(cell, Styled) else (cell, "")
    # A model's or a user's words must neither steer the terminal nor look like another line.
    return Text(clean(text).translate({9: " ", 10: " "}), style=style)
