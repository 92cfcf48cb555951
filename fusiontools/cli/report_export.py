"""A report for programs and documents: JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from fusiontools.cli import report_text as words
from fusiontools.evaluation.report.comparisons import Contest, Runs
from fusiontools.evaluation.report.statistics import Mean, PairedDifference
from fusiontools.evaluation.report.summary import PanelSummary, Summary, SummaryRow
from fusiontools.evaluation.report.systems import ORACLE
from fusiontools.record import jsonl


def export(summary: Summary, form: str) -> str | None:
    """Return the report in a form; None for the one that a person reads in a terminal."""
    if form == "json":
        return jsonl.dumps(as_data(summary)).decode() + "\n"
    if form == "csv":
        return _csv([_flatten_row(row, summary) for row in summary.rows])
    return _markdown(summary) if form == "markdown" else None


def export_runs(runs: Runs, form: str) -> str | None:
    """Return what changed between two runs in a form; None for the one that a person reads in a terminal."""
    if form == "json":
        return jsonl.dumps(_runs_data(runs)).decode() + "\n"
    if form == "csv":
        return _csv([_flatten_means(row) for row in _runs_data(runs)["systems"]])
    if form == "markdown":
        table = words.runs_table(runs)
        return _table(table.head, table.rows) + "\n" + "\n".join(f"- {said}" for said in words.runs_words(runs)) + "\n"
    return None


def as_data(summary: Summary) -> dict[str, Any]:
    """Return all of a report."""
    return {
        "tasks": summary.tasks,
        "records": summary.records,
        "subject": summary.subject,
        "binary": summary.binary,
        "cost_measure": summary.measure,
        "seed": summary.draws.seed,
        "resamples": summary.draws.resamples,
        "answers": [{"question": v.question, "answer": v.answer, "why": v.why} for v in words.verdicts(summary)],
        "systems": [_row_data(row) for row in summary.rows],
        "comparisons": [_contest_data(contest) for contest in summary.contests],
        "categories": [
            {
                "category": category.name,
                "tasks": category.tasks,
                "scores": {name: _mean_data(mean) for name, mean in category.scores.items()},
                "differences": {name: _pair_data(pair) for name, pair in category.differences.items()},
            }
            for category in summary.categories
        ],
        "panel": _panel_data(summary.panel),
        "notes": summary.notes,
    }


def _row_data(row: SummaryRow) -> dict[str, Any]:
    is_known, is_real = not row.cost.unknown, row.system != ORACLE
    return {
        "system": row.name,
        "kind": row.system.kind,
        "parts": list(row.parts),
        "same_as": list(row.same),
        **_mean_data(row.score),
        "records": row.records,
        "failed": _round(row.failed),
        "usd_per_task": _round(row.cost.usd) if is_known and is_real else None,
        "usd_per_task_at_least": _round(row.cost.usd) if is_real else None,
        "usd_per_right": _round(row.usd_per_right),
        "unknown_costs": _round(row.cost.unknown),
        "calls_per_task": _round(row.cost.calls),
        "tokens_per_task": _round(row.cost.tokens),
        "cost_ratio": _round(row.ratio),
        "p50_s": _round(row.p50_s),
        "p95_s": _round(row.p95_s),
    }


def _contest_data(contest: Contest) -> dict[str, Any]:
    low, high = contest.interval
    return {
        "against": contest.against,
        "rival": contest.rival,
        **_pair_data(contest.pair),
        "low": _round(low),
        "high": _round(high),
        "p": _round(contest.p),
        "p_holm": _round(contest.p_holm),
        "verdict": contest.verdict,
        "tasks_needed": contest.tasks_needed,
        "difference_seen": _round(contest.difference_seen),
        "rivals": {name: _pair_data(pair) for name, pair in sorted(contest.rivals.items())},
    }


def _pair_data(pair: PairedDifference) -> dict[str, Any]:
    low, high = pair.interval
    return {
        "tasks": pair.tasks,
        "difference": _round(pair.mean),
        "low": _round(low),
        "high": _round(high),
        "wins": pair.wins,
        "ties": pair.ties,
        "losses": pair.losses,
        "p": _round(pair.p),
        "test": "mcnemar" if pair.binary else "signs",
    }


def _mean_data(mean: Mean) -> dict[str, Any]:
    low, high = mean.interval
    return {"tasks": mean.tasks, "score": _round(mean.mean), "low": _round(low), "high": _round(high)}


def _panel_data(panel: PanelSummary) -> dict[str, Any]:
    return {
        "ceiling": _mean_data(panel.ceiling) if panel.ceiling else None,
        "co_failure": _round(panel.co_failure),
        "recovered": _round(panel.recovered),
        "pairs": [
            {
                "members": list(names),
                "n": pair.n,
                "same_answer": _round(pair.same / pair.voted) if pair.voted else None,
                "same_error": _round(pair.same_wrong / pair.wrong) if pair.wrong else None,
                "correlation": _round(pair.correlation),
            }
            for names, pair in sorted(panel.pairs.items())
        ],
        "ranking": [{"n": rank.n, "score": _round(rank.score / rank.n)} for rank in panel.ranks if rank.n],
        "votes_by_agreement": [
            {
                "low": part.low,
                "high": part.high,
                "votes": part.votes,
                "agreement": _round(part.agreement),
                "score": _round(part.score),
                "score_low": _round(part.interval[0]),
                "score_high": _round(part.interval[1]),
            }
            for part in panel.agreement
        ],
        "by_lot": _round(panel.chance.score / panel.chance.n) if panel.chance.n else None,
    }


def _runs_data(runs: Runs) -> dict[str, Any]:
    return {
        "tasks": runs.tasks,
        "only_before": runs.alone[0],
        "only_after": runs.alone[1],
        "gone": runs.gone,
        "new": runs.new,
        "systems": [
            {
                "system": each.name,
                "before": _mean_data(each.before),
                "after": _mean_data(each.after),
                **_pair_data(each.difference),
                "p_holm": _round(each.p_holm),
                "changed": each.p_holm < 0.05,
            }
            for each in runs.systems
        ],
    }


def _flatten_row(row: SummaryRow, summary: Summary) -> dict[str, Any]:
    words_of = {"parts": " ".join(row.parts), "same_as": " ".join(row.same)}
    return {**_row_data(row), **words_of, "subject": row.name == summary.subject}


def _flatten_means(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the score alone of each mean in it."""
    return {key: value["score"] if isinstance(value, dict) else value for key, value in row.items()}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _markdown(summary: Summary) -> str:
    parts = [f"**{v.question}** {v.answer}. {v.why}" for v in words.verdicts(summary)]
    parts += [_systems(summary), _contests(summary), _categories(summary)]
    said = [*words.panel_words(summary), *summary.notes, words.method_words(summary)]
    return "\n\n".join([*(part.rstrip("\n") for part in parts if part), "\n".join(f"- {each}" for each in said)]) + "\n"


def _systems(summary: Summary) -> str:
    head = ["system", "score", "95 %", "$/task", "$/right", "calls", "tokens", "p50 s", "p95 s", "failed"]
    rows = []
    for row in summary.rows:
        score = [words.points(row.score.mean, signed=False), words.span(row.score.interval, signed=False)]
        cost = [words.usd(row.cost.usd, row.cost.unknown > 0), words.usd(row.usd_per_right)]
        spent = [*cost, f"{row.cost.calls:.3g}", f"{row.cost.tokens:,.0f}"] if row.system != ORACLE else ["-"] * 4
        times = ["-" if time is None else f"{time:.3g}" for time in (row.p50_s, row.p95_s)]
        rows.append([words.title_of(row, summary.tasks), *score, *spent, *times, f"{row.failed:.3g}"])
    return _table(head, rows)


def _contests(summary: Summary) -> str:
    head = [
        f"{summary.subject} against",
        "system",
        "cost",
        "points",
        "95 %",
        "won / tied / lost",
        "p (Holm)",
        "verdict",
    ]
    rows = []
    for each in summary.contests:
        ratio, pair = summary.row(each.rival).ratio, each.pair
        cost = f"{ratio:.2f}x" if ratio is not None else "-"
        tallied = f"{pair.wins:,} / {pair.ties:,} / {pair.losses:,}"
        numbers = [words.points(pair.mean), words.span(each.interval), tallied, f"{each.p_holm:.3f}"]
        rows.append([each.against, each.rival, cost, *numbers, each.verdict])
    return _table(head, rows) if rows else ""


def _categories(summary: Summary) -> str:
    names = [row.name for row in summary.rows]
    rows = []
    for category in summary.categories:
        scores = [category.scores.get(name) for name in names]
        cells = ["-" if score is None else words.points(score.mean, signed=False) for score in scores]
        rows.append([category.name or "(none)", f"{category.tasks:,}", *cells])
    return _table(["category", "tasks", *names], rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others stand right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in [head, rule, *rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _round(number: float | None) -> float | None:
    return None if number is None else round(number, 8)
