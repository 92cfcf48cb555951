"""A report as a person reads it: the answer first, then the tables and sentences that it rests on."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from fusiontools.cli.table import Cell, Styled, table_text
from fusiontools.cli.text import Paint
from fusiontools.evaluation.report.comparisons import Contest, Runs
from fusiontools.evaluation.report.statistics import Interval, Mean
from fusiontools.evaluation.report.summary import Summary, SummaryRow
from fusiontools.evaluation.report.systems import ORACLE
from fusiontools.record.clean import clean

_ANSWERS = {"better": "YES", "worse": "NO", "cannot tell": "CANNOT TELL"}
_RANKS_SHOWN = 6
#: Of the sentences; a table is as wide as the screen.
_WIDTH = 100


class Verdict(Struct, frozen=True):
    """A question that a report answers first."""

    question: str
    answer: str
    why: str


class RunsTable(Struct, frozen=True):
    """Rows under a head."""

    head: list[str]
    rows: list[list[str]]


def points(share: float, *, signed: bool = True) -> str:
    """Return a score, or a difference of two, in points of a hundred."""
    return f"{100 * share:+.1f}" if signed else f"{100 * share:.1f}"


def span(interval: Interval, *, signed: bool = True) -> str:
    """Return an interval in points."""
    low, high = (points(bound, signed=signed) for bound in interval)
    return f"{low} … {high}" if signed else f"{low}-{high}"


def usd(amount: float | None, partly: bool = False) -> str:
    """Return an amount of money; `partly` where more was spent, nobody knows how much."""
    if amount is None:
        return "unknown"
    if partly and not amount:
        return "unknown"
    # Two digits that say something, however little it is.
    digits = 2 if amount >= 1 or not amount else max(4, 1 - math.floor(math.log10(amount)))
    return f"{'≥' if partly else ''}${amount:,.{digits}f}"


def verdicts(summary: Summary) -> Iterator[Verdict]:
    """Yield the two questions that decide whether a fusion pays: at its cost, and at all."""
    contests = {contest.against: contest for contest in summary.contests}
    question = f"Is {summary.subject} better than the best single model at its cost?"
    if "same-cost" in contests:
        yield _verdict(question, contests["same-cost"], summary)
    else:
        yield Verdict(question, "NOT MEASURED", "No single model was asked at about the same cost (see the notes).")
    if "best-single" in contests:
        member = "another member" if summary.row(summary.subject).system.kind == "member" else "the best single member"
        yield _verdict(f"Is it better than {member}, whatever that costs?", contests["best-single"], summary)


def ceiling_words(summary: Summary) -> Iterator[str]:
    """Yield how far any selection among the responses could get."""
    panel = summary.panel
    if panel.ceiling is None:
        return
    ceiling = points(panel.ceiling.mean, signed=False)
    if panel.co_failure == 0:
        said = "Somebody on the panel is right on every task (co-failure 0): a choice among its responses could be too."
    elif panel.co_failure is not None:
        nobody = f"Nobody on the panel is right on {100 * panel.co_failure:.1f} % of the tasks (co-failure)"
        said = f"{nobody}: no choice among its responses scores above {ceiling}."
    else:
        said = f"No choice among the panel's responses scores above {ceiling}."
    if panel.recovered is not None and panel.recovered > 1:
        said += f" {summary.subject} scores above that: it writes what no response says."
    elif panel.recovered is not None:
        said += f" {summary.subject} goes {100 * panel.recovered:.0f} % of the way there from the best member."
    yield said


def together_words(summary: Summary) -> Iterator[str]:
    """Yield how the members go together."""
    pairs = list(summary.panel.pairs.values())
    same = [pair.same / pair.voted for pair in pairs if pair.voted]
    if same:
        mean = sum(pair.same for pair in pairs) / sum(pair.voted for pair in pairs)
        by_pair = f" ({100 * min(same):.0f} to {100 * max(same):.0f} % by pair)" if len(same) > 1 else ""
        said = f"Two members give the same answer {100 * mean:.0f} % of the time{by_pair}"
        if wrong := sum(pair.wrong for pair in pairs):
            said += (
                f", and where both are wrong the same wrong one {_percent(sum(p.same_wrong for p in pairs) / wrong)}"
            )
        yield f"{said}."
    correlations = [pair.correlation for pair in pairs if pair.correlation is not None]
    if correlations:
        mean = sum(correlations) / len(correlations)
        by_pair = f" ({min(correlations):.2f} to {max(correlations):.2f} by pair)" if len(correlations) > 1 else ""
        yield f"Their scores correlate at {mean:.2f}{by_pair}: the nearer to 1, the less a second member can add."


def agreement_words(summary: Summary) -> Iterator[str]:
    """Yield how often votes are right, by how many agree."""
    parts = summary.panel.agreement
    if len(parts) > 1:
        word = "right" if summary.binary else "worth"
        each = ", ".join(f"{100 * part.high:.0f}: {100 * part.score:.0f} ({part.votes:,})" for part in parts)
        yield f"Where up to so many in 100 agree, a vote is {word} so often in 100 (of how many votes): {each}."


def ranking_words(summary: Summary) -> Iterator[str]:
    """Yield how good the response is that the judge ranked first, second, …"""
    ranks = [rank for rank in summary.panel.ranks if rank.n][:_RANKS_SHOWN]
    if ranks:
        word = "right" if summary.binary else "scores"
        each = ", ".join(f"{place}. {100 * rank.score / rank.n:.1f}" for place, rank in enumerate(ranks, start=1))
        chance = summary.panel.chance
        by_lot = f"{100 * chance.score / chance.n:.1f}"
        yield f"How often the response that the judge ranked k-th is {word}, in %: {each}; one drawn by lot {by_lot}."


def panel_words(summary: Summary) -> list[str]:
    """Return what is said of the panel below the tables."""
    said = (ceiling_words, together_words, agreement_words, ranking_words)
    return [sentence for words in said for sentence in words(summary)]


def method_words(summary: Summary) -> str:
    """Return how it was computed."""
    n, tests = len(summary.contests), {contest.pair.binary for contest in summary.contests}
    named = " or ".join(
        name for is_binary, name in ((True, "McNemar's, exact"), (False, "by signs drawn by lot")) if is_binary in tests
    )
    repeated = f", {summary.records:,} records" if summary.records != summary.tasks else ""
    drawn = f"{summary.draws.resamples:,} draws of whole tasks, seed {summary.draws.seed}"
    tested = f" p is {named}, Holm-corrected for {n} comparison{'s' * (n > 1)}." if n else ""
    measure = "money" if summary.measure == "usd" else "calls, as not everything has a price that is known"
    return (
        f"{summary.tasks:,} tasks{repeated}. Intervals are of 95 %, Wilson's or bootstrapped ({drawn}); those of "
        f"differences are not corrected.{tested} `cost` compares {measure}."
    )


def runs_table(runs: Runs) -> RunsTable:
    """Return what changed between two runs, a row for each system."""
    head = ["system", "before", "after", "points", "95 %", "gained", "same", "lost", "p Holm"]
    rows = []
    for each in runs.systems:
        pair = each.difference
        scores = [points(mean.mean, signed=False) for mean in (each.before, each.after)]
        flips = [f"{count:,}" for count in (pair.wins, pair.ties, pair.losses)]
        p = "<0.001" if each.p_holm < 0.001 else f"{each.p_holm:.3f}"
        rows.append([each.name, *scores, points(pair.mean), span(pair.interval), *flips, p])
    return RunsTable(head, rows)


def runs_words(runs: Runs) -> list[str]:
    """Return what the table leaves out."""
    changed = [each.name for each in runs.systems if each.p_holm < 0.05]
    said = [f"{runs.tasks:,} tasks in both runs; changed for sure: {', '.join(changed) or 'nothing'}."]
    for count, which in zip(runs.alone, ("first", "second"), strict=True):
        if count:
            said.append(f"{count:,} task{'s' * (count > 1)} in the {which} run only: left out.")
    for names, which in ((runs.gone, "first"), (runs.new, "second")):
        if names:
            said.append(f"In the {which} run only: {', '.join(names)}.")
    n = len(runs.systems)
    said.append(f"p is McNemar's, exact, or by signs drawn by lot; Holm-corrected for {n} system{'s' * (n > 1)}.")
    return said


def _verdict(question: str, contest: Contest, summary: Summary) -> Verdict:
    pair, ratio = contest.pair, summary.row(contest.rival).ratio
    at = f" at {ratio:.2f}x the cost" if ratio is not None else ""
    p = "< 0.001" if contest.p_holm < 0.001 else f"= {contest.p_holm:.3f}"
    why = f"{points(pair.mean)} points ({span(contest.interval)}) against {contest.rival}{at}, p {p}."
    if contest.verdict == "cannot tell":
        why += _power(contest)
    return Verdict(question, _ANSWERS[contest.verdict], why)


def _power(contest: Contest) -> str:
    """Return what it would take to tell."""
    pair, said = contest.pair, ""
    if (needed := contest.tasks_needed) is not None and needed > pair.tasks:
        said += f" To see {points(pair.mean)} takes about {needed:,} tasks, {needed - pair.tasks:,} more."
    if (seen := contest.difference_seen) is not None:
        said += f" These {pair.tasks:,} show {100 * seen:.1f} points or more, 4 times of 5."
    elif not said:
        said = " The two hardly ever differ: these tasks cannot tell them apart."
    return said


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def name_of(text: str, width: int) -> str:
    """Return a name that fits, without its middle where it does not: its end tells how many samples vote.

    A model's or a user's words must not steer a terminal.
    """
    indent = text[: len(text) - len(text.lstrip(" "))]
    text = indent + " ".join(clean(text).split())
    tail = min(7, width // 3)
    return text if len(text) <= width else f"{text[: width - tail - 1]}…{text[len(text) - tail :]}"


_NAME = 40
_BAR = 12
_CATEGORIES = 20
_STYLES = {"YES": "green", "better": "green", "NO": "red", "worse": "red", "CANNOT TELL": "yellow"}
_GROUPS = {"member": "members alone", "baseline": "baselines", "oracle": "out of reach"}


class _Page(Struct, frozen=True):
    """What is written on: its colours, and how wide it is."""

    paint: Paint
    width: int | None

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[Cell]], left: Collection[int], folding: int = 0
    ) -> str:
        """Return a table that fits on it."""
        return table_text(head, rows, left=left, folding=folding, colour=self.paint.colour, width=self.width)


def format_report(summary: Summary, colour: bool, width: int | None = None) -> str:
    """Return the report; its tables are as wide as they need to be where no width bounds them."""
    page = _Page(Paint(colour), width)
    parts = [
        _verdicts(summary, page),
        _systems(summary, page),
        _contests(summary, page),
        _categories(summary, page),
        _wrap(panel_words(summary)),
        _wrap([f"Note: {note}" for note in summary.notes]),
        _wrap([method_words(summary)]),
    ]
    return "\n".join(part for part in parts if part)


def format_runs(runs: Runs, colour: bool, width: int | None = None) -> str:
    """Return what changed between two runs."""
    page = _Page(Paint(colour), width)
    table = runs_table(runs)
    rows = [[name_of(row[0], _NAME), *row[1:]] for row in table.rows]
    return "\n".join([page.table(table.head, rows, {0}), _wrap(runs_words(runs))])


def _verdicts(summary: Summary, page: _Page) -> str:
    lines = []
    for verdict in verdicts(summary):
        lines.append(
            f"{page.paint(clean(verdict.question), 'bold')}  {page.paint(verdict.answer, _STYLES.get(verdict.answer))}"
        )
        lines += textwrap.wrap(clean(verdict.why), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines) + "\n" if lines else ""


def _systems(summary: Summary, page: _Page) -> str:
    in_usd = any(row.cost.usd or row.cost.unknown for row in summary.rows)
    each = "right" if summary.binary else "1.0"
    costs = ["$/task", f"$/{each}"] if in_usd else ["calls", f"calls/{each}"]
    head = ["", "score             95 %      ", *costs, "tokens", "p50/p95 s", "failed"]
    rows: list[list[str]] = []
    group = ""
    for row in summary.rows:
        if row.system.kind != group and row.system.kind in _GROUPS:
            rows.append([_GROUPS[row.system.kind], *[""] * (len(head) - 1)])
        group = row.system.kind
        rows.append(_system(row, in_usd, summary.tasks))
    return page.table(head, rows, {0, 1})


def title_of(row: SummaryRow, tasks: int) -> str:
    """Return what stands at the head of a system's row: also what is the same, its parts, and on how few tasks it is.

    Args:
        tasks: how many there are.
    """
    told = [*row.parts, *([f"{row.score.tasks:,} of {tasks:,} tasks"] if row.score.tasks < tasks else [])]
    name = " = ".join([row.name, *row.same])
    return f"{name} ({', '.join(told)})" if told else name


def _system(row: SummaryRow, in_usd: bool, tasks: int) -> list[str]:
    name = title_of(row, tasks)
    indent = "  " if row.system.kind in _GROUPS else ""
    spent = [""] * 4
    if row.system != ORACLE:
        cost = usd(row.cost.usd, row.cost.unknown > 0) if in_usd else f"{row.cost.calls:.3g}"
        right = row.score.mean * row.records
        per_right = (
            usd(row.usd_per_right) if in_usd else _number(row.cost.calls * row.records / right if right else None)
        )
        times = "-" if row.p50_s is None else f"{_number(row.p50_s)}/{_number(row.p95_s)}"
        spent = [cost, per_right, _count(row.cost.tokens), times]
    failed = f"{row.failed:.3g}" if row.failed else ""
    return [indent + name_of(name, _NAME), _score_text(row.score), *spent, failed]


def _score_text(score: Mean | None) -> str:
    """Return a score, its bar and its interval: together they are one picture."""
    if score is None:
        return "-"
    return f"{points(score.mean, signed=False):>5} {bar(score.interval)} {span(score.interval, signed=False)}"


def _contests(summary: Summary, page: _Page) -> str:
    if not summary.contests:
        return ""
    head = [f"{name_of(summary.subject, 9)} against", "", "cost", "points", "95 %", "won/tied/lost", "p Holm", ""]
    rows: list[list[Cell]] = []
    for each in summary.contests:
        ratio = summary.row(each.rival).ratio
        pair = each.pair
        rows.append(
            [
                name_of(each.against, 17),
                name_of(each.rival, _NAME),
                f"{ratio:.2f}x" if ratio is not None else "",
                points(pair.mean),
                span(each.interval),
                f"{pair.wins:,}/{pair.ties:,}/{pair.losses:,}",
                p_value(each.p_holm),
                Styled(each.verdict, _STYLES.get(each.verdict, "")),
            ]
        )
    return page.table(head, rows, {0, 1, 7}, folding=1)


def _categories(summary: Summary, page: _Page) -> str:
    if not summary.categories:
        return ""
    rivals = list(summary.categories[0].differences)
    head = ["category", "tasks", name_of(summary.subject, 20), *(f"against {name_of(rival, 13)}" for rival in rivals)]
    rows = []
    by_size = sorted(summary.categories, key=lambda category: (-category.tasks, category.name))
    for category in by_size[:_CATEGORIES]:
        row = [
            name_of(category.name or "(none)", _NAME),
            f"{category.tasks:,}",
            _score_text(category.scores.get(summary.subject)),
        ]
        for rival in rivals:
            pair = category.differences.get(rival)
            row.append(f"{points(pair.mean)} {span(pair.interval):>14}" if pair else "-")
        rows.append(row)
    more = len(by_size) - _CATEGORIES
    tail = f"and {more} more categories (-o json has them)\n" if more > 0 else ""
    return page.table(head, rows, {0, 2}) + tail


def bar(interval: Interval) -> str:
    """Return a bar that is full as far as is sure, and grey as far as may be."""
    low, high = (round(bound * _BAR) for bound in interval)
    return "█" * low + "▒" * (max(high, low + 1) - low if low < _BAR else 0) + "·" * (_BAR - max(high, low + 1))


def p_value(p: float) -> str:
    """Return a p as it is printed."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _wrap(sentences: Sequence[str]) -> str:
    lines = [textwrap.fill(clean(sentence), _WIDTH, subsequent_indent="  ") for sentence in sentences]
    return "\n".join(lines) + "\n" if lines else ""


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < 100_000 else f"{number / 1000:,.0f}k"


def _number(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"
