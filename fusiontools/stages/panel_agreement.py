"""Whether the responses so far agree: by the key of a vote, by code, or by asking a judge.

Source  Chen et al. 2023, FrugalGPT, arXiv:2305.05176 (ask the cheap ones first);
        Aggarwal et al. 2023, Adaptive-Consistency, arXiv:2305.11860 (stop sampling once the majority is safe)
"""

from __future__ import annotations

from collections.abc import Sequence

from fusiontools import ballot, compare, prompts
from fusiontools.errors import CallFailed
from fusiontools.models.ledger import Ledger, Slot
from fusiontools.record import Degraded, Record, Response
from fusiontools.stage_options import PanelOptions
from fusiontools.stages.runtime import Runtime
from fusiontools.stages.verdicts import ask_for
from fusiontools.words import question_text

_SCHEMA = {"reasoning": {"type": "string"}, "agree": {"type": "boolean"}}


def agree_by_code(question: str, texts: Sequence[str], key: str) -> bool:
    """Return whether all texts vote for the same.

    Short texts are compared by what they say. Of long ones code cannot tell whether they agree: they share their
    subject's words, whatever they recommend.
    """
    kind, keys = ballot.ballots(texts, key, question)
    if kind == "text" and key == "auto":
        return compare.is_short(texts) and compare.agreement(question, list(texts)) == 1.0
    return keys[0] is not None and len(set(keys)) == 1


def majority_is_safe(question: str, texts: Sequence[str], key: str, outstanding: int) -> bool:
    """Return whether no answer that is still to come can change which key has the most votes."""
    if not texts:
        return False
    keys = ballot.ballots(texts, key, question)[1]
    counts: dict[str, int] = {}
    for found in keys:
        if found is not None:
            counts[found] = counts.get(found, 0) + 1
    first, second = sorted([*counts.values(), 0, 0], reverse=True)[:2]
    return first > second + outstanding


async def agree(
    record: Record, responses: Sequence[Response], options: PanelOptions, runtime: Runtime, ledger: Ledger
) -> tuple[bool, list[Degraded]]:
    """Return whether at least two responses, none of them failed, agree; and what went wrong in finding out."""
    if len(responses) < 2 or any("error" in response for response in responses):
        return False, []
    if options.agree != "judge":
        texts = [prompts.said(response) for response in responses]
        return agree_by_code(question_text(record), texts, options.agree), []
    model = options.agree_models[0]
    before: Record = {**record, "panel": list(responses)}
    _, labels = prompts.blind_order(record["id"], range(len(responses)))
    messages = prompts.about_responses(before, "agree", options.template, labels)
    said = await ask_for(
        _SCHEMA, messages, model, runtime, ledger, Slot(model.name, layer=responses[0]["layer"], step="agree")
    )
    if isinstance(said, CallFailed):
        note: Degraded = {"stage": "panel", "code": "judge_failed", "detail": f"{model.name}: {said.message}"}
        return False, [note]
    verdict = said.get("agree")
    if not isinstance(verdict, bool):
        return False, [{"stage": "panel", "code": "bad_analysis", "detail": f"{model.name}: no `agree` in the reply"}]
    return verdict, []
