"""The count of a panel's votes: whose answer wins, which response stands for it, and what the record says of it.

A tie goes, in this order, to the answer whose voters were the most confident (mean log probability, where the engine
gave it for all that are tied), to the one the analysis ranks best, to the one given first in the panel's order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.answers.confidence import find_least_confident, is_comparable, weigh_by_confidence
from fusiontools.answers.tally import Tally, count_votes
from fusiontools.config.stage_table import VoteOptions
from fusiontools.record import sections
from fusiontools.record.sections import question_text, usable_responses
from fusiontools.record.types import Degraded, Record, Response


class Ballot(Struct, frozen=True):
    """How the responses of one panel voted.

    Args:
        keys: what each usable response votes for, by its position.
        tally: the count; None where nobody can be counted.
    """

    kind: str
    keys: dict[int, str | None]
    weights: dict[int, float]
    tally: Tally | None
    usable: dict[int, Response]
    #: The weight of all responses, usable or not, without those that were dropped.
    whole: float
    #: Whose weights counted.
    weighing: str
    #: The positions of the least sure, which do not count; None where all do.
    dropped: list[int] | None = None

    @property
    def winner(self) -> int:
        """Return the position of the response that stands for the majority."""
        assert self.tally is not None  # noqa: S101 - asked only where somebody was counted
        winners = [i for i in self.usable if self.keys[i] == self.tally.key and self.weights[i]]
        return max(winners, key=lambda i: stands_for(i, self.usable[i]))

    @property
    def agreement(self) -> float:
        """Return the winner's share of all responses, by weight: who failed, abstains or cannot be read is against."""
        return self.tally.votes / self.whole if self.tally is not None else 0.0

    def section(self) -> dict[str, Any]:
        """Return what the record says of the count."""
        assert self.tally is not None  # noqa: S101 - asked only where somebody was counted
        tally = self.tally
        section = {
            "key": tally.key,
            "kind": self.kind,
            "votes": _as_integer(tally.votes),
            "of": _as_integer(tally.of),
            "counts": {key: _as_integer(count) for key, count in tally.counts.items()},
            "voters": {key: [i for i, own in self.keys.items() if own == key] for key in tally.counts},
            "abstained": tally.abstained,
        }
        weighing = {} if self.weighing == "given" else {"weighing": self.weighing}
        dropped = {} if self.dropped is None else {"dropped": self.dropped}
        return section | weighing | dropped | ({"tie": tally.tie} if tally.tie else {})


def count_ballot(record: Record, options: VoteOptions) -> Ballot:
    """Count the votes of a panel that has a usable response."""
    from fusiontools.answers.keys import read_responses

    usable = dict(usable_responses(record))
    votes = read_responses(list(usable.values()), options.key, question_text(record))
    keys = dict(zip(usable, votes.keys, strict=True))
    dropped = least_sure(usable, options) if options.drop_lowest else None
    for position in dropped or ():
        del usable[position], keys[position]
    given = weights_of(options)
    weights = {i: given.get(response["member"], 1.0) for i, response in usable.items()}
    if options.weighing == "logprob":
        factors = weigh_by_confidence([r["member"] for r in usable.values()], _each(usable, "mean_logprob"))
        weights = {i: weight * factor for (i, weight), factor in zip(weights.items(), factors, strict=True)}
    left_out = set(dropped or ())
    counted = [(i, response["member"]) for i, response in enumerate(record["panel"]) if i not in left_out]
    whole = math.fsum(weights.get(i, given.get(member, 1.0)) for i, member in counted)
    tally = _count_responses(record, usable, keys, weights)
    return Ballot(votes.kind, keys, weights, tally, usable, whole, options.weighing, dropped)


def least_sure(usable: Mapping[int, Response], options: VoteOptions) -> list[int]:
    """Return the positions of the responses that are left out as the least sure."""
    places = list(usable)
    members, windows = [response["member"] for response in usable.values()], _each(usable, "lowest_window_logprob")
    return [places[at] for at in find_least_confident(members, windows, options.drop_lowest)]


def _each(usable: Mapping[int, Response], name: Literal["mean_logprob", "lowest_window_logprob"]) -> list[float | None]:
    return [response.get(name) for response in usable.values()]


def weights_of(options: VoteOptions) -> Mapping[str, float]:
    """Return what the members' votes count, where it is not 1."""
    return (options.learned if options.weighing == "learned" else options.weights) or {}


def note_unknown_weights(record: Record, options: VoteOptions) -> list[Degraded]:
    """Say which weights are for nobody on this panel."""
    members = {response["member"] for response in (*record["panel"], *record.get("spared", []))}
    return [
        {"stage": "vote", "code": "unknown_weight", "detail": f"no member of this panel is called {name!r}"}
        for name in weights_of(options)
        if name not in members
    ]


def note_not_weighed(record: Record, options: VoteOptions) -> list[Degraded]:
    """Say for which responses log probabilities were to count, and could not."""
    if not options.wants_logprobs:
        return []
    usable = dict(usable_responses(record))
    known = _each(usable, "mean_logprob" if options.weighing == "logprob" else "lowest_window_logprob")
    missing = known.count(None)
    if missing == len(known):
        detail = "no response says how likely its tokens were: all count the same; `fuse-panel --logprobs` asks for it"
    elif not is_comparable([response["member"] for response in usable.values()], known):
        detail = "no member has two responses with log probabilities, and those of several models cannot be compared"
    elif missing:
        detail = f"{missing} of {len(known)} responses have no log probabilities: each counts as one of its member's"
    else:
        return []
    return [{"stage": "vote", "code": "not_weighed", "detail": detail}]


def cast(record: Record, options: VoteOptions) -> tuple[Ballot, int, list[Degraded]]:
    """Return the count, the position of the answer, and what there is to say: the best response where nobody counts."""
    ballot = count_ballot(record, options)
    if ballot.tally is not None:
        return ballot, ballot.winner, []
    detail = f"no response can be counted as {ballot.kind}: the best response stands in"
    return ballot, sections.best(record), [{"stage": "vote", "code": "nothing_to_count", "detail": detail}]


def stands_for(position: int, response: Mapping[str, Any]) -> tuple[bool, float, int]:
    """Return what makes a response stand for those that say the same: finished, then confident, then early."""
    confidence = response.get("mean_logprob")
    finished = response.get("finish_reason") in ("stop", "tool_calls")
    return finished, float("-inf") if confidence is None else confidence, -position


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


def _as_integer(count: float) -> float:
    return int(count) if count.is_integer() else count
