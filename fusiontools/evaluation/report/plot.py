"""A report as a picture: cost against score with the Pareto front, categories, what the judge's ranking is worth."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.errors import UsageError, install_line
from fusiontools.evaluation.report.reliability import AgreementPart
from fusiontools.evaluation.report.statistics import Interval, Mean, wilson
from fusiontools.evaluation.report.summary import Category, Summary, SummaryRow
from fusiontools.evaluation.report.systems import ORACLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMS = ("svg", "png", "pdf")
_INK, _GREY, _PALE, _FAINT = "#1f3b57", "#5c5c5c", "#d5dce3", "#9a9a9a"
#: Told apart without colour: by mark in the first panel, by lightness and hatching in the others.
_MARKS = {
    "fusion": "*",
    "answered": "P",
    "checked": "d",
    "given": "<",
    "learned": "X",
    "logprob": ">",
    "surer": "h",
    "vote": "s",
    "until": "p",
    "pick": "D",
    "member": "o",
    "baseline": "^",
    "votes": "v",
}
_KINDS = {
    "fusion": "fusion",
    "answered": "fusion where it answers",
    "checked": "fusion where a check picked",
    "given": "vote with given weights",
    "learned": "vote with learned weights",
    "logprob": "vote weighted by log probability",
    "surer": "vote without the least sure",
    "vote": "vote of the panel",
    "until": "vote until it is sure",
    "pick": "judge's pick",
    "member": "member alone",
    "baseline": "baseline alone",
    "votes": "vote of one\nmodel's samples",
}
_FILLS = (("#5b7fa3", ""), ("#b4c2cf", "//"), ("#eef1f4", ".."))
_CATEGORIES = 12
#: From so large a factor between the costs on, they are drawn on a logarithmic scale.
_WIDE = 20
#: In parts of the picture: how far marks stand apart whose names are not stacked, where names go to the left, a line.
_CLOSE, _RIGHTMOST, _LINE = 0.05, 0.7, 0.042
#: In parts of its width: how far marks stand apart at least, so that no error bar lies on another.
_DODGE = 0.014
#: Fixed, so that the same report gives the same file.
_SALT = "fusiontools"
_CALIBRATION_TITLE = "How often votes are right, by how many agree; intervals of 95 %"
_FRONT_TITLE = "What nobody beats: score on unseen questions against cost, intervals of 95 %"


def draw(summary: Summary, path: str) -> None:
    """Draw a report into a file; its name's ending says in which form.

    Raises:
        UsageError: no such form, no plotting library, or the file cannot be written.
    """
    _save(lambda: _make_figure(summary), _title(summary), path)


class FrontMark(Struct, frozen=True):
    """One way to an answer in a picture of those that nobody beats; `kind` is `chosen`, `best alone` or `front`."""

    label: str
    cost: float
    score: Mean
    seen: float
    kind: str


def draw_front(marks: Sequence[FrontMark], priced: bool, path: str) -> None:
    """Draw what nobody beats into a file: score on unseen questions against cost; raises as `draw`."""
    _save(lambda: _make_front(marks, priced), _FRONT_TITLE, path)


def draw_calibration(parts: Sequence[AgreementPart], threshold: float | None, path: str) -> None:
    """Draw how often votes of each agreement are right into a file; raises as `draw`.

    Args:
        threshold: from which agreement on is answered, where that was fitted.
    """
    _save(lambda: _make_calibration(parts, threshold), _CALIBRATION_TITLE, path)


def _save(make: Callable[[], Any], title: str, path: str) -> None:
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in _FORMS:
        raise UsageError(f"--plot {path}: the name must end in .svg, .png or .pdf")
    try:
        import matplotlib as mpl
    except ImportError:
        raise UsageError(f"--plot needs matplotlib: {install_line('eval')}") from None
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": _SALT, "font.family": "sans-serif", "font.size": 9}
    drawn = io.BytesIO()
    with mpl.rc_context(settings):
        dates: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[form]
        make().savefig(drawn, format=form, dpi=150, metadata={"Title": title, **dates})
    try:
        Path(path).write_bytes(drawn.getvalue())
    except OSError as error:
        raise UsageError(f"--plot {path}: cannot be written: {error.strerror}") from error


def _make_figure(summary: Summary) -> Any:
    from matplotlib.figure import Figure

    below: list[tuple[int, Callable[[Axes], None]]] = []
    if summary.categories:
        below.append((3, lambda axes: _draw_categories(axes, summary)))
    if any(rank.n for rank in summary.panel.ranks):
        below.append((2, lambda axes: _draw_ranks(axes, summary)))
    if len(summary.panel.agreement) > 1:
        below.append((2, lambda axes: _draw_agreement(axes, summary)))
    figure = Figure(figsize=(10.5, 5.2 + 3.6 * bool(below)), layout="constrained")
    figure.suptitle(_title(summary), fontsize=12, fontweight="bold", x=0.01, ha="left")
    if not below:
        _draw_costs(figure.subplots(), summary)
        return figure
    grid = figure.add_gridspec(2, sum(width for width, _ in below), height_ratios=(5, 3.4))
    _draw_costs(figure.add_subplot(grid[0, :]), summary)
    begun = 0
    for width, draw_below in below:
        draw_below(figure.add_subplot(grid[1, begun : begun + width]))
        begun += width
    return figure


def _draw_agreement(axes: Axes, summary: Summary) -> None:
    _draw_reliability(axes, summary.panel.agreement)
    axes.set_title("Votes: right, by how many agree", loc="left", fontsize=10)


def _make_front(marks: Sequence[FrontMark], priced: bool) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    figure.suptitle(_FRONT_TITLE, fontsize=12, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots()
    front = sorted((mark for mark in marks if mark.kind == "front"), key=lambda mark: mark.cost)
    axes.plot([m.cost for m in front], [100 * m.score.mean for m in front], color=_FAINT, linestyle="--", linewidth=1)
    axes.plot([m.cost for m in front], [100 * m.seen for m in front], color=_FAINT, linestyle=":", linewidth=1)
    styles = {"front": ("o", _GREY, "white"), "best alone": ("^", _GREY, "white"), "chosen": ("*", _INK, _INK)}
    for mark in sorted(marks, key=lambda mark: list(styles).index(mark.kind)):
        sign, colour, fill = styles[mark.kind]
        axes.errorbar(
            mark.cost,
            100 * mark.score.mean,
            yerr=_make_whiskers([(mark.score.mean, mark.score.interval)]),
            fmt=sign,
            color=colour,
            markerfacecolor=fill,
            markersize=13 if mark.kind == "chosen" else 7,
            capsize=3,
            linewidth=1,
        )
    for mark in {mark.label: mark for mark in marks}.values():
        axes.annotate(mark.label, (mark.cost, 100 * mark.score.mean), (6, -10), textcoords="offset points", fontsize=7)
    if min(m.cost for m in marks) > 0 and max(m.cost for m in marks) > _WIDE * min(m.cost for m in marks):
        axes.set_xscale("log")
    axes.set_xlabel("cost of a question (USD)" if priced else "calls for a question")
    axes.set_ylabel("score on unseen questions, points of 100 (dotted: as chosen)")
    _clear_frame(axes)
    return figure


def _make_calibration(parts: Sequence[AgreementPart], threshold: float | None) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    figure.suptitle(_CALIBRATION_TITLE, fontsize=12, fontweight="bold", x=0.01, ha="left")
    _draw_reliability(figure.subplots(), parts, threshold)
    return figure


def _draw_reliability(axes: Axes, parts: Sequence[AgreementPart], threshold: float | None = None) -> None:
    axes.plot([0, 100], [0, 100], color=_FAINT, linewidth=1, linestyle=":", label="as often as they agree")
    axes.errorbar(
        [100 * part.agreement for part in parts],
        [100 * part.score for part in parts],
        yerr=_make_whiskers([(part.score, part.interval) for part in parts]),
        fmt="o",
        color=_INK,
        capsize=3,
        linewidth=1,
    )
    for part in parts:
        place = (100 * part.agreement, 100 * part.score)
        axes.annotate(f"{part.votes:,}", place, (5, 4), textcoords="offset points", fontsize=7)
    if threshold is not None and threshold <= 1:
        axes.axvline(100 * threshold, color=_GREY, linewidth=1, linestyle="--", label="answered from here on")
    axes.set_xlim(0, 104)
    axes.set_ylim(0, 104)
    axes.set_xlabel("share of the panel that agrees, %")
    axes.set_ylabel("right, %")
    axes.legend(loc="best", fontsize=8, frameon=False)
    _clear_frame(axes)


def _title(summary: Summary) -> str:
    return f"{summary.subject}: score against cost, {summary.tasks:,} tasks, intervals of 95 %"


def _draw_costs(axes: Axes, summary: Summary) -> None:
    # A score on other tasks is another measure: its mark would stand beside the others, or above the ceiling.
    rows = [row for row in summary.rows if row.system != ORACLE and row.is_beside]
    costs = [row.cost.of(summary.measure) for row in rows]
    positive = [cost for cost in costs if cost > 0]
    if len(positive) == len(costs) and max(positive) > _WIDE * min(positive):
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 1.3, 1.3 * max(costs))
    else:
        axes.set_xlim(0, 1.08 * max(costs) or 1)
    front = _find_front(rows, costs)
    xs, ys = zip(*front, strict=True)
    axes.step(xs, [100 * y for y in ys], where="post", color=_FAINT, linewidth=1, linestyle="--", zorder=1)
    if (ceiling := _find_ceiling(summary)) is not None:
        axes.axhline(100 * ceiling, color=_FAINT, linewidth=1, linestyle=":")
    costs = _dodge(axes, costs)
    for row, cost in zip(rows, costs, strict=True):
        is_subject = row.name == summary.subject
        axes.errorbar(
            cost,
            100 * row.score.mean,
            yerr=_make_whiskers([(row.score.mean, row.score.interval)]),
            fmt=_MARKS[_name_mark(row)],
            color=_INK if is_subject else _GREY,
            markerfacecolor=_INK if is_subject else "white",
            markersize=13 if row.system.kind == "fusion" else 7,
            capsize=3,
            linewidth=1,
            zorder=3,
        )
    _draw_names(axes, rows, costs)
    least = "at least, " if any(row.cost.unknown for row in rows) else ""
    axes.set_xlabel(f"cost of a task ({least}USD)" if summary.measure == "usd" else "calls for a task")
    axes.set_ylabel(_unit(summary))
    axes.set_title("Cost against score", loc="left", fontsize=10)
    _draw_legend(axes, rows, summary)
    _clear_frame(axes)


def _find_ceiling(summary: Summary) -> float | None:
    """Return what any choice among the responses could score on the tasks of the picture."""
    return next((row.score.mean for row in summary.rows if row.system == ORACLE and row.is_beside), None)


def _dodge(axes: Axes, costs: Sequence[float]) -> list[float]:
    """Return where the marks of these costs stand: those of about the same cost side by side, for their error bars."""
    to_axes = axes.transData + axes.transAxes.inverted()
    order = sorted(range(len(costs)), key=lambda i: costs[i])
    places = _spread_apart([to_axes.transform((costs[i], 0))[0] for i in order], _DODGE)
    moved = list(costs)
    for i, place in zip(order, places, strict=True):
        moved[i] = float(to_axes.inverted().transform((place, 0))[0])
    return moved


def _name_mark(row: SummaryRow) -> str:
    return "votes" if row.system.votes else row.system.kind


def _unit(summary: Summary) -> str:
    return "right, %" if summary.binary else "score, points of 100"


def _draw_legend(axes: Axes, rows: Sequence[SummaryRow], summary: Summary) -> None:
    """Say what the marks and lines are, beside the picture, where it hides nothing."""
    from matplotlib.lines import Line2D

    used = dict.fromkeys(_name_mark(row) for row in rows)
    shown = [
        Line2D([], [], linestyle="", color=_GREY, markerfacecolor="white", marker=_MARKS[kind], label=_KINDS[kind])
        for kind in used
    ]
    shown.append(Line2D([], [], color=_FAINT, linestyle="--", linewidth=1, label="Pareto front"))
    if _find_ceiling(summary) is not None:
        ceiling = "ceiling of any choice\namong the responses"
        shown.append(Line2D([], [], color=_FAINT, linestyle=":", linewidth=1, label=ceiling))
    elsewhere = [row for row in summary.rows if not row.is_beside]
    if elsewhere:
        names = "\n".join(f"{row.name}: {row.score.tasks:,} tasks" for row in elsewhere)
        shown.append(Line2D([], [], linestyle="", label=f"Left out, on other tasks:\n{names}"))
    axes.legend(handles=shown, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)


def _draw_names(axes: Axes, rows: Sequence[SummaryRow], costs: Sequence[float]) -> None:
    """Write each name beside its mark; names of marks that stand close are stacked, with a line to each mark."""
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = [(*to_axes.transform((cost, 100 * row.score.mean)), row) for row, cost in zip(rows, costs, strict=True)]
    placed.sort(key=lambda each: each[:2])
    columns: list[list[tuple[float, float, SummaryRow]]] = []
    for each in placed:
        if columns and each[0] - columns[-1][0][0] < _CLOSE:
            columns[-1].append(each)
        else:
            columns.append([each])
    for column in columns:
        column.sort(key=lambda each: each[1])
        heights = _spread_apart([y for _, y, _ in column], _LINE)
        is_left = column[-1][0] > _RIGHTMOST
        edge = min(x for x, *_ in column) - 0.018 if is_left else max(x for x, *_ in column) + 0.018
        for (x, y, row), height in zip(column, heights, strict=True):
            is_moved = abs(height - y) > _LINE / 2 or abs(edge - x) > 0.03
            axes.annotate(
                row.name,
                (x, y),
                (edge, height),
                xycoords="axes fraction",
                textcoords="axes fraction",
                fontsize=8.5,
                ha="right" if is_left else "left",
                va="center",
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
                fontweight="bold" if row.system.kind == "fusion" else "normal",
                arrowprops={"arrowstyle": "-", "color": _FAINT, "linewidth": 0.5} if is_moved else None,
            )


def _spread_apart(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending places with at least this gap between them, as little moved as can be, and not below half of it.

    Places that are too close make a group, which stands around its middle; groups that meet make one.
    """
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _middle(groups[-1]) - _middle(groups[-2]) < gap * len(groups[-2] + groups[-1]) / 2:
            last = groups.pop()
            groups[-1] += last
    spread: list[float] = []
    for group in groups:
        first = _middle(group) - gap * (len(group) - 1) / 2
        spread += [first + gap * i for i in range(len(group))]
    for i, place in enumerate(spread):
        spread[i] = max(place, gap / 2 if i == 0 else spread[i - 1] + gap)
    return spread


def _middle(group: Sequence[float]) -> float:
    return sum(group) / len(group)


def _find_front(rows: Sequence[SummaryRow], costs: Sequence[float]) -> list[tuple[float, float]]:
    """Return the systems that nobody beats at their cost, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(zip(costs, (row.score.mean for row in rows), strict=True), key=lambda p: (p[0], -p[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def _draw_categories(axes: Axes, summary: Summary) -> None:
    categories = sorted(summary.categories, key=lambda category: (-category.tasks, category.name))[:_CATEGORIES]
    rivals = [contest.rival for contest in summary.contests if contest.against in ("same-cost", "best-single")]
    names = list(dict.fromkeys([summary.subject, *rivals]))
    width = 0.8 / len(names)
    for i, (name, (colour, hatch)) in enumerate(zip(names, _FILLS, strict=False)):
        scored = [(place, category.scores.get(name)) for place, category in enumerate(categories)]
        known = [(place, score) for place, score in scored if score is not None]
        axes.bar(
            [place - 0.4 + width * (i + 0.5) for place, _ in known],
            [100 * score.mean for _, score in known],
            width,
            yerr=_make_whiskers([(score.mean, score.interval) for _, score in known]),
            color=colour,
            edgecolor="#3c3c3c",
            linewidth=0.6,
            hatch=hatch,
            label=name,
            error_kw={"linewidth": 0.9, "capsize": 2, "ecolor": "black"},
        )
    axes.set_xticks(range(len(categories)), [_name_tick(category) for category in categories], fontsize=8)
    axes.set_ylim(0, 100)
    axes.set_ylabel(_unit(summary))
    axes.set_title("By category", loc="left", fontsize=10)
    axes.legend(loc="upper right", fontsize=8, ncols=3, bbox_to_anchor=(1, 1.16), frameon=False)
    _clear_frame(axes)


def _name_tick(category: Category) -> str:
    return f"{category.name or '(none)'}\n{category.tasks:,}"


def _draw_ranks(axes: Axes, summary: Summary) -> None:
    ranks = [rank for rank in summary.panel.ranks if rank.n]
    means = [rank.score / rank.n for rank in ranks]
    whiskers = None
    if summary.panel.co_failure is not None:
        whiskers = _make_whiskers([(m, wilson(r.score, r.n)) for m, r in zip(means, ranks, strict=True)])
    axes.bar(
        range(1, len(ranks) + 1),
        [100 * mean for mean in means],
        0.6,
        yerr=whiskers,
        color=_PALE,
        edgecolor="#3c3c3c",
        linewidth=0.6,
        error_kw={"linewidth": 0.9, "capsize": 2},
    )
    chance = summary.panel.chance
    axes.axhline(100 * chance.score / chance.n, color="#3c3c3c", linewidth=1, linestyle="--", label="one drawn by lot")
    axes.set_xticks(range(1, len(ranks) + 1))
    axes.set_ylim(0, 100)
    axes.set_xlabel("place in the judge's ranking")
    axes.set_title(
        f"The judge's ranking: is the k-th {'right, %' if summary.binary else 'good, points'}", loc="left", fontsize=10
    )
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    _clear_frame(axes)


def _make_whiskers(scores: Sequence[tuple[float, Interval]]) -> list[list[float]]:
    below = [100 * (mean - low) for mean, (low, _) in scores]
    return [below, [100 * (high - mean) for mean, (_, high) in scores]]


def _clear_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
