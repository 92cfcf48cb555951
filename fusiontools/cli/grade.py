"""`fuse-grade`: grade the answer, every panel response, layer and baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fusiontools.cli.command import command
from fusiontools.config.evaluation_options import GradeOptions
from fusiontools.config.stage_table import JournalOptions, LimitOptions, StreamOptions

if TYPE_CHECKING:
    from fusiontools.config.models import Model
    from fusiontools.config.resolve import Resolver
    from fusiontools.record.types import Grade, Record

HELP = """\
\b
  fuse-tasks arithmetic | fuse-panel | fuse-judge | fuse-synth | fuse-grade | fuse-report
  fuse-grade --grader rubric --runs 3 -m openai/gpt-5.5 < answers.jsonl > graded.jsonl

Grade the answer, every panel response, those of earlier layers, and every baseline, against what the task says.

Reads records with an `answer` or a `panel`, and `meta`: `target` (the answer, or a list of accepted ones), `grader` (a
name, or {"name": "numeric", "tolerance": 0.01}). Adds `grades`. The answer is read out of a text as fuse-vote reads it;
equal texts are graded once. A response that failed has score 0. A task without a target has no grades, and `no_target`
in `degraded`.

\b
  exact     the same words, or the same yes or no
  numeric   the same number; tolerance, relative: how far off it may be
  choice    the letter, or the words of its option
  contains  the target stands there as whole words; all: true wants every one
  regex     the target is found in the last 2,000 characters; pattern: what it finds is the target
  json      the same value; path: where it stands
  code      the program passes meta.tests, in a sandbox (bubblewrap)
  rubric    a model says of each criterion of meta.rubric whether it is met; weights may be < 0
  pairwise  a model compares with the target, blind and in both orders: win 1, tie 0.5, loss 0
  auto      code where there are tests, rubric where there is one; else by the target: json for
            an object, choice for a letter that the question offers, numeric for a number,
            exact for anything else

A verdict that is missing or cannot be read is said in the grade's `error`, and never counts for the text. Judges are
asked at temperature 0, further --runs with another seed. With --replay a second grading makes no call.
"""


@command("fuse-grade", GradeOptions, LimitOptions, JournalOptions, StreamOptions, help=HELP)
def main(
    files: tuple[str, ...],
    config: str | None,
    grade: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    stream: dict[str, Any],
) -> None:
    from fusiontools.cli.filter import FilterPlan, run_filter
    from fusiontools.cli.setup import make_client, own_recipe, resolver, warm_up
    from fusiontools.evaluation.grade import grade as stage

    recipe = own_recipe(config)
    resolving = resolver(config, recipe, journal, limit)
    options = GradeOptions(**_resolve_models(grade, resolving))
    work = stage(options, _judges_for(resolving), StreamOptions(**stream).jobs)
    client = make_client(recipe, limit, journal, "fuse-grade")
    warm_up()
    run_filter(FilterPlan("fuse-grade", work, client, needs=("messages", "fuse-synth"), as_text=as_text), files, stream)


def _resolve_models(given: Mapping[str, Any], resolving: Resolver) -> dict[str, Any]:
    """Return the typed options with names turned into models, whose keys must be there.

    Raises:
        UsageError: a model that cannot be, or whose key is missing.
    """
    from fusiontools.config.models import ENDPOINTS, environment_endpoints, merge_members, require_ready
    from fusiontools.config.recipe import Recipe, parse_model
    from fusiontools.errors import UsageError

    if "models" not in given:
        return dict(given)
    base = resolving.recipe or Recipe(name="")
    models = merge_members(tuple(parse_model(text, base) for text in given["models"]))
    endpoints = resolving.recipe.endpoints if resolving.recipe else environment_endpoints(ENDPOINTS)
    for model in models:
        if model.samples > 1:
            raise UsageError(f"--model {model.name!r}: a judge is named once; --runs N lets it grade N times")
        if not resolving.offline:
            require_ready(endpoints[model.endpoint])
    return {**given, "models": models}


def _judges_for(resolving: Resolver) -> Callable[[Record], tuple[Model, ...]]:
    """Return who judges a record where nobody was typed: the judge of its own recipe, else of the chosen one."""

    def judges(record: Record) -> tuple[Model, ...]:
        from fusiontools.config.recipe import judges_of
        from fusiontools.config.recipe_yaml import load_recipe
        from fusiontools.config.resolve import require_endpoints

        carried = record.get("recipe") if not resolving.binding else None
        if carried is not None and "judge" in carried:
            found = judges_of(carried, limited=resolving.limited)
            require_endpoints(resolving.recipe, found[:1], "judge")
        else:
            found = (resolving.recipe or load_recipe()).judge.models
        return found[:1]

    return judges


def as_text(record: Record) -> str:
    """Return a record's scores on one line: of the answer, then of everybody."""
    from fusiontools.record.clean import clean

    grades = record.get("grades")
    if grades is None:
        why = [note for note in record.get("degraded", []) if note.get("stage") == "grade"]
        return clean(f"{record['id']}: not graded: {why[0]['detail'] if why else 'no grades'}") + "\n"
    answer = [grade for grade in grades if grade["of"] == "answer"]
    others = ", ".join(_grade_text(grade) for grade in grades if grade["of"] != "answer")
    own = _score_text(answer[0]) if answer else "no answer"
    return clean(f"{record['id']}: {own}{f'  ({others})' if others else ''}") + "\n"


def _grade_text(grade: Grade) -> str:
    sample = f"#{grade['sample']}" if grade["sample"] else ""
    where = {"layer": f"layer {grade['layer']} ", "baseline": "baseline "}.get(grade["of"], "")
    return f"{where}{grade['member']}{sample} {_score_text(grade)}"


def _score_text(grade: Grade) -> str:
    failed = f" [{grade['error']['code']}]" if "error" in grade else ""
    return f"{grade['score']:.3g}{failed}"
