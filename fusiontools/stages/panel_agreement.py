"""Decide whether the responses of a panel agree, by code or by a judge: then nobody else need be asked.

Source  Aggarwal et al. 2023, Adaptive-Consistency, arXiv:2305.11860 (stop sampling once the majority is safe)
"""

from __future__ import annotations

from collections.abc import Sequence

from fusiontools.config.stage_table import PanelOptions
from fusiontools.errors import CallFailed
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record.sections import question_text
from fusiontools.record.types import Degraded, Record, Response
from fusiontools.stages import prompts, verdicts
from fusiontools.stages.replies import truth_in
from fusiontools.stages.runtime import Runtime, compare_apart

_SCHEMA = {"reasoning": {"type": "string"}, "agree": {"type": "boolean"}}


def agree_by_code(question: str, texts: Sequence[str], key: str) -> bool:
    """Return whether all texts vote for the same; of long ones that give no result, code cannot tell."""
    from fusiontools.answers.keys import read_votes

    votes = read_votes(texts, key, question)
    return not votes.vague and votes.said[0] is not None and len(set(votes.said)) == 1


def leading_votes(question: str, responses: Sequence[Response], key: str) -> tuple[int, int]:
    """Return the votes of the two answers with the most; who fails, abstains or cannot be told apart has none."""
    from fusiontools.answers.certainty import leading
    from fusiontools.answers.keys import read_responses

    votes = read_responses([response for response in responses if "error" not in response], key, question)
    return leading([None if at in votes.vague else own for at, own in enumerate(votes.said)])


def majority_is_safe(question: str, texts: Sequence[str], key: str, outstanding: int) -> bool:
    """Return whether no answer that is still to come can change which key has the most votes."""
    from fusiontools.answers.certainty import leading
    from fusiontools.answers.keys import vote_keys

    if not texts:
        return False
    first, second = leading(vote_keys(texts, key, question)[1])
    return first > second + outstanding


async def agree(
    record: Record, responses: Sequence[Response], options: PanelOptions, runtime: Runtime, ledger: Ledger
) -> tuple[bool, list[Degraded]]:
    """Return whether at least two responses, none of them failed, agree; and what went wrong in finding out."""
    if len(responses) < 2 or any("error" in response for response in responses):
        return False, []
    if options.agree != "judge":
        texts = [prompts.response_text(response) for response in responses]
        agreed = await compare_apart(texts, options.agree, agree_by_code, question_text(record), texts, options.agree)
        return agreed, []
    model = options.agree_models[0]
    before: Record = {**record, "panel": list(responses)}
    _, labels = prompts.blind_order(record["id"], range(len(responses)))
    prompt = prompts.about_responses(before, "agree", options.template, labels)
    slot = Slot(model.name, layer=responses[0]["layer"], step="agree")
    params = verdicts.verdict_params(model, verdicts.verdict_form(_SCHEMA))
    reply = await verdicts.ask(params, prompt, model, runtime, ledger, slot)
    if isinstance(reply, CallFailed):
        note: Degraded = {"stage": "panel", "code": "judge_failed", "detail": f"{model.name}: {reply.message}"}
        return False, [note]
    verdict = truth_in(reply, "agree")
    if verdict is None:
        return False, [{"stage": "panel", "code": "bad_analysis", "detail": f"{model.name}: no `agree` in the reply"}]
    return verdict, []
