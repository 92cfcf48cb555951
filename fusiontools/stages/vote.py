"""Let the responses vote: the majority's answer, word for word; no model is asked.

Reads   messages, panel; analysis where it breaks a tie
Adds    answer, with the count in `answer.vote`
Calls   none
Fails   all_failed when no response is usable; where nobody can be counted, the best response is the answer, and
        `nothing_to_count` stands in `degraded`
Source  Wang et al. 2022, self-consistency, arXiv:2203.11171

A tie goes, in this order, to the answer whose voters were the most confident (mean log probability, where the engine
gave it for all that are tied), to the one the analysis ranks best, to the one given first in the panel's order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fusiontools.answers.keys import check_key, read_responses
from fusiontools.answers.tally import Tally, count_votes
from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import VoteOptions
from fusiontools.errors import InputError, UsageError
from fusiontools.record import sections
from fusiontools.record.sections import question_text, texts_of, usable_responses
from fusiontools.record.types import Degraded, Record, Response
from fusiontools.stages.runtime import Runtime, Stage, compare_apart, copy_response, reads_panel, with_section


def vote(options_for: OptionsFor[VoteOptions]) -> Stage:
    """Return the stage."""

    @reads_panel("vote")
    async def run(record: Record, runtime: Runtime) -> Record:
        options = options_for(record)
        try:
            check_key(options.key)
        except UsageError as error:
            raise InputError(f"{error.message}; give another with --key", "$.recipe.vote.key") from error
        usable = usable_responses(record)
        if len(usable) == 1:
            return copy_response(record, usable[0][0], sections.one_survivor(record, "vote"))
        return await compare_apart(texts_of(record), options.key, _voted, record, options)

    return run


def _voted(record: Record, options: VoteOptions) -> Record:
    usable = dict(usable_responses(record))
    notes = _unknown_weights(record, options)
    votes = read_responses(list(usable.values()), options.key, question_text(record))
    kind, keys = votes.kind, dict(zip(usable, votes.keys, strict=True))
    weights = {i: (options.weights or {}).get(response["member"], 1.0) for i, response in usable.items()}
    tally = _count_responses(record, usable, keys, weights)
    if tally is None:
        detail = f"no response can be counted as {kind}: the best response stands in"
        notes.append({"stage": "vote", "code": "nothing_to_count", "detail": detail})
        return copy_response(record, sections.best(record), notes)
    winners = [i for i in usable if keys[i] == tally.key and weights[i]]
    position = max(winners, key=lambda i: _worth(i, usable[i]))
    answer = sections.take_verbatim(record, position, "vote", vote=_section(kind, tally, keys))
    return with_section(record, "answer", answer, degraded=notes)


def _count_responses(
    record: Record, usable: dict[int, Response], keys: dict[int, str | None], weights: dict[int, float]
) -> Tally | None:
    """Count the votes in the order in which a tie is broken: as ranked, where there is a ranking, then as they came."""
    ranked = [i for i in record.get("analysis", {}).get("ranking", []) if i in usable]
    order = list(dict.fromkeys([*ranked, *usable]))
    confidence = [usable[i].get("mean_logprob") for i in order]
    tally = count_votes([keys[i] for i in order], [weights[i] for i in order], confidence)
    if tally is None:
        return None
    first = next(i for i in order if keys[i] == tally.key and weights[i])
    tie = "ranking" if tally.tie == "order" and first in ranked else tally.tie
    return replace(tally, winner=order[tally.winner], abstained=sorted(order[at] for at in tally.abstained), tie=tie)


def _section(kind: str, tally: Tally, keys: dict[int, str | None]) -> dict[str, Any]:
    section = {
        "key": tally.key,
        "kind": kind,
        "votes": _as_integer(tally.votes),
        "of": _as_integer(tally.of),
        "counts": {key: _as_integer(count) for key, count in tally.counts.items()},
        "voters": {key: [i for i, own in keys.items() if own == key] for key in tally.counts},
        "abstained": tally.abstained,
    }
    return {**section, "tie": tally.tie} if tally.tie else section


def _worth(position: int, response: Response) -> tuple[bool, float, int]:
    """Return what makes a response stand for those that say the same: finished, then confident, then early."""
    confidence = response.get("mean_logprob")
    finished = response.get("finish_reason") in ("stop", "tool_calls")
    return finished, float("-inf") if confidence is None else confidence, -position


def _as_integer(count: float) -> float:
    return int(count) if count.is_integer() else count


def _unknown_weights(record: Record, options: VoteOptions) -> list[Degraded]:
    members = {response["member"] for response in (*record["panel"], *record.get("spared", []))}
    return [
        {"stage": "vote", "code": "unknown_weight", "detail": f"no member of this panel is called {name!r}"}
        for name in options.weights or {}
        if name not in members
    ]
