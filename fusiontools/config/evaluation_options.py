"""What the tools of evaluation can be told; apart, so that no other tool takes the time to make these classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusiontools.config.options import Settings, option
from fusiontools.config.stage_table import StreamOptions

if TYPE_CHECKING:
    from fusiontools.config.models import Model

#: How a text can be graded; `auto` takes what fits the target.
GRADERS = ("auto", "exact", "numeric", "choice", "contains", "regex", "json", "code", "rubric", "pairwise")


class GradeOptions(Settings):
    """What `fuse-grade` can be told."""

    grader: str | None = option(
        None, "--grader", choices=GRADERS, help="How texts are graded.  [default: what the task says, else auto]"
    )
    models: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, model=True, metavar="MODEL[@ENDPOINT]",
        help="Who grades for rubric and pairwise; repeat for several, whose scores are averaged.",
    )  # fmt: skip
    runs: int = option(1, "--runs", minimum=1, metavar="N", help="How often each of them grades; scores are averaged.")
    layers: bool = option(True, "--layers/--no-layers", help="Grade the responses of earlier layers too.")
    unsafe: bool = option(
        False, "--unsafe", help="Run model-written programs (grader code) where no sandbox is to be had."
    )
    code_s: float = option(10.0, "--code-timeout", minimum=0.1, metavar="S", help="Longest run of a program.")


class ReportOptions(Settings):
    """What `fuse-report` can be told."""

    output: str = option(
        "table", "-o", "--output", choices=("table", "json", "csv", "markdown"), help="How to print it."
    )
    plot: str | None = option(None, "--plot", metavar="FILE", help="Draw it too: .svg, .png or .pdf.")
    compare: bool = option(False, "--compare", help="Compare two runs, task by task: BEFORE AFTER.")
    system: str | None = option(
        None, "--system", metavar="SYSTEM", help="Whom to compare with the others.  [default: fusion]"
    )
    fail_under: float | None = option(
        None, "--fail-under", minimum=0, metavar="SCORE", help="Exit 5 where its score (0 to 1) is lower."
    )
    worse: tuple[str, ...] = option(
        (),
        "--fail-if-worse-than",
        multiple=True,
        metavar="RIVAL",
        help="Exit 5 where the interval of the difference lies below 0: best-single, same-cost, judge, vote, a system; "
        "with --compare: before.",
    )
    seed: int = option(0, "--seed", minimum=0, metavar="N", help="Seed of the resampling.")
    resamples: int = option(2000, "--resamples", minimum=200, metavar="N", help="How often is drawn.")
    max_line_mib: float = option(
        StreamOptions().max_line_mib, "--max-line-mib", minimum=0.0001, metavar="MIB", help="Refuse longer lines."
    )


class TuneOptions(Settings):
    """What `fuse-tune` can be told."""

    output: str | None = option(None, "-o", "--output", metavar="FILE", help="Write the chosen recipe to FILE.")
    table: str | None = option(
        None, "--table", metavar="FILE",
        help="Where routes by kind of question go, if the choice has any.  [default: FILE of -o, with .routes.json]",
    )  # fmt: skip
    max_cost_usd: float | None = option(
        None, "--max-cost-usd", minimum=0, metavar="USD", help="The best that costs so much for one question at most."
    )
    max_latency_s: float | None = option(
        None, "--max-latency-s", minimum=0, metavar="S", help="The best that takes so many seconds at most."
    )
    min_score: float | None = option(
        None, "--min-score", minimum=0, maximum=1, metavar="SCORE", help="The cheapest that scores (0 to 1) so much."
    )
    explain: bool = option(False, "--explain", help="Say of each member what it adds and whom it copies.")
    as_json: bool = option(False, "--json", help="Print all of it as JSON.")
    plot: str | None = option(None, "--plot", metavar="FILE", help="Draw the front: .svg, .png or .pdf.")
    seed: int = option(0, "--seed", minimum=0, metavar="N", help="Seed of the splits and of the resampling.")
    resamples: int = option(2000, "--resamples", minimum=200, metavar="N", help="How often is drawn.")
    max_line_mib: float = option(
        StreamOptions().max_line_mib, "--max-line-mib", minimum=0.0001, metavar="MIB", help="Refuse longer lines."
    )


class CalibrateOptions(Settings):
    """What `fuse-calibrate` can be told."""

    risk: float = option(
        0.05, "--risk", minimum=0.0001, maximum=0.9999, metavar="SHARE", help="The share of wrong answers allowed."
    )
    of: str = option(
        "asked", "--of", choices=("asked", "answered"),
        help="Of all questions asked, on average; or of those answered, with --confidence.",
    )  # fmt: skip
    confidence: float = option(
        0.9, "--confidence", minimum=0.5, maximum=0.9999, metavar="SHARE", help="How sure, for --of answered."
    )
    weighing: str | None = option(
        None,
        "--weights",
        choices=("given", "learned", "logprob"),
        help="Whose weights count.  [default: the recipe's, else given]",
    )
    output: str | None = option(None, "-o", "--output", metavar="FILE", help="Write the threshold to FILE.")
    apart_from: tuple[str, ...] = option(
        (), "--apart-from", multiple=True, metavar="FILE",
        help="Leave out questions that stand in FILE too: the one that fuse-tune has learned from.",
    )  # fmt: skip
    as_json: bool = option(False, "--json", help="Print all of it as JSON.")
    plot: str | None = option(None, "--plot", metavar="FILE", help="Draw agreement against score: .svg, .png or .pdf.")
    max_line_mib: float = option(
        StreamOptions().max_line_mib, "--max-line-mib", minimum=0.0001, metavar="MIB", help="Refuse longer lines."
    )
