"""Ask a judge which of two texts is better, in both orders: what it prefers in one order only is its place's merit.

Reads   messages
Adds    nothing; its calls stand in the ledger of the stage that asks
Calls   two completions at once; none for two equal texts
Fails   never: a verdict that is missing is said in `problem`
Source  Zheng et al. 2023, LLM-as-a-Judge, arXiv:2306.05685, section 3.4 (a win is what wins in both orders)
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from fusiontools.config.models import Model
from fusiontools.config.templates import load_template
from fusiontools.errors import CallFailed
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record.types import Message, Record
from fusiontools.stages import prompts
from fusiontools.stages.replies import label_in, said_in, unreadable
from fusiontools.stages.runtime import Runtime
from fusiontools.stages.verdicts import ask, verdict_form, verdict_params

_PROPERTIES = {"reasoning": {"type": "string"}, "better": {"type": "string", "enum": ["A", "B", "tie"]}}
_TIES = frozenset({"tie", "a tie", "tied", "draw"})
#: What a label stands for, in the order given and in the other one.
_MEANING = (
    {"A": "first", "B": "second"},
    {"A": "second", "B": "first"},
)


class PairwiseVerdict(Struct, frozen=True):
    """How two texts fared against each other.

    Args:
        winner: 0 or 1; None for a tie, for orders that disagree, and where no verdict could be read.
        verdicts: one for each order: `first`, `second`, `tie`, `unreadable` or `failed`; they speak of the texts as
            they were given, not of the labels under which they were shown.
        problem: what went wrong, in words, where a verdict is unreadable or failed.
    """

    winner: int | None
    verdicts: tuple[str, ...]
    problem: str | None = None


async def duel(
    record: Record,
    texts: tuple[str, str],
    model: Model,
    template: str,
    runtime: Runtime,
    ledger: Ledger,
    *,
    first_sample: int = 0,
    step: str | None = None,
) -> PairwiseVerdict:
    """Return which of two texts a judge prefers.

    Args:
        texts: what each of the two says; they are shown as A and B, and nothing tells the judge whose they are.
        first_sample: the number under which the ledger keeps the first order; the other order has the next.
        step: what the ledger calls it, where the stage makes other calls, too.

    Only what both orders say counts: a tie in one of them is a tie. Where one order has no verdict, the other decides.
    """
    if texts[0] == texts[1]:
        return PairwiseVerdict(None, ("tie", "tie"))
    params = verdict_params(model, verdict_form(_PROPERTIES))
    asked = [
        ask(params, prompt, model, runtime, ledger, Slot(model.name, first_sample + order, step=step))
        for order, prompt in enumerate(_both_orders(record, texts, template))
    ]
    replies = await asyncio.gather(*asked)
    verdicts: list[str] = []
    problems: list[str] = []
    for reply, meaning in zip(replies, _MEANING, strict=True):
        verdict, problem = _read(reply, meaning)
        verdicts.append(verdict)
        problems += [problem] if problem else []
    return PairwiseVerdict(_winner(verdicts), tuple(verdicts), problems[0] if problems else None)


def _both_orders(record: Record, texts: tuple[str, str], template: str) -> list[prompts.Prompt]:
    sections = load_template(template)
    # Over the texts in one order: the mark, as the rules, is the same for both.
    mark = prompts.mark_for("duel", record, texts)
    values = {"nonce": mark, "conversation": prompts.conversation(record["messages"])}
    orders = []
    for shown in (texts, texts[::-1]):
        responses = prompts.fence_texts(dict(zip("AB", shown, strict=True)), mark)
        system = Message(role="system", content=sections["duel system"])
        filled = prompts.fill(sections["duel user"], {**values, "responses": responses})
        orders.append(prompts.Prompt([system, Message(role="user", content=filled)], mark))
    return orders


def _read(reply: str | CallFailed, meaning: dict[str, str]) -> tuple[str, str | None]:
    """Return the verdict, and what is wrong with it."""
    if isinstance(reply, CallFailed):
        return "failed", reply.message
    said = said_in(reply, "better")
    if isinstance(said, str) and said.casefold().strip(" _.") in _TIES:
        return "tie", None
    verdict = meaning.get(label_in(said, dict.fromkeys(meaning, 0)))
    return (verdict, None) if verdict else ("unreadable", unreadable(reply, "names neither A nor B nor a tie"))


def _winner(verdicts: list[str]) -> int | None:
    readable = {verdict for verdict in verdicts if verdict in ("first", "second", "tie")}
    if len(readable) != 1:
        return None
    return {"first": 0, "second": 1, "tie": None}[readable.pop()]
