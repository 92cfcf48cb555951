"""How a report is format_report on a terminal."""

from __future__ import annotations

import json

import pytest
from graded import scored
from hypothesis import given
from hypothesis import strategies as st
from reporting import summed
from rich.cells import cell_len

from fusiontools.cli.report_text import bar, format_report, usd


@pytest.mark.parametrize(
    ("amount", "partly", "shown"),
    [(None, False, "unknown"), (0, True, "unknown"), (0, False, "$0.00"), (2.5, False, "$2.50"),
     (0.0123, True, "≥$0.0123"), (0.000012, False, "$0.000012")],
)  # fmt: skip
def test_an_amount_says_what_is_known(amount: float | None, partly: bool, shown: str) -> None:
    assert usd(amount, partly) == shown


@given(
    st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=5, unique=True), st.sampled_from([0.0, 0.5, 1.0])
)
def test_a_terminal_of_100_columns_is_wide_enough_and_no_name_steers_it(names: list[str], score: float) -> None:
    graded = [
        {**scored(f"q{i}", 1, **dict.fromkeys(names, score)), "meta": {"category": names[i % 2]}} for i in range(2)
    ]
    records = [each for each in graded if (json.dumps(each).encode("utf-8", "strict"))]

    text = format_report(summed(records), colour=False, width=100)

    # Sentences are wrapped by characters, tables by cells: a Chinese one takes two.
    assert max(min(len(line), cell_len(line)) for line in text.splitlines()) <= 100
    assert not [char for char in text if char != "\n" and (ord(char) < 32 or 127 <= ord(char) < 160)]


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_bar_is_as_long_as_its_scale(one: float, other: float) -> None:
    low, high = sorted((one, other))

    drawn = bar((low, high))

    assert len(drawn) == len(bar((0, 1)))
    assert drawn == "█" * drawn.count("█") + "▒" * drawn.count("▒") + "·" * drawn.count("·")
