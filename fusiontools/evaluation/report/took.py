"""What the calls of many records took, by who needs them: every call is added up once, and the sums are put together.

Calls are kept as a line of numbers each. Sums are made in the order of the ledger, so that each record's are the same
whatever stands beside it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from fusiontools.evaluation.report.statistics import load_numpy

#: A member's name and the number of its sample.
Seat = tuple[str, int]
#: The round of whoever was not asked in rounds.
NO_ROUND = -1
#: A stage, a layer of it, and a step there.
_Lane = tuple[str, int, str | None]


class Took(NamedTuple):
    """What some calls took together: arrays of one shape, an element for each record, or for each record and seat."""

    #: How many they are, and what they were worth as far as that is known.
    calls: Any
    usd: Any
    #: How many calls nobody knows the cost of.
    unknown: Any
    tokens: Any
    #: Seconds on the wall; 0 where there is no call, NaN where one was replayed: nobody measured.
    latency_s: Any

    @classmethod
    def nothing(cls, *shape: int) -> Took:
        """Return what no calls take."""
        return cls(*load_numpy().zeros((5, *shape)))

    @property
    def measured_s(self) -> Any:
        """Return the seconds on the wall; NaN also where there is no call."""
        return load_numpy().where(self.calls > 0, self.latency_s, math.nan)

    def then(self, other: Took) -> Took:
        """Return what these calls and others take that come after them."""
        return Took(*(one + two for one, two in zip(self, other, strict=True)))

    def beside(self, other: Took) -> Took:
        """Return what these calls and others take that are made at the same time."""
        return self.then(other)._replace(latency_s=load_numpy().maximum(self.latency_s, other.latency_s))

    def in_turn(self) -> Took:
        """Return what all seats of each record take that work one after the other."""
        return Took(*(sum(each.T) for each in self))

    def at_once(self) -> Took:
        """Return what all seats of each record take that work at the same time."""
        return self.in_turn()._replace(latency_s=self.latency_s.max(axis=1, initial=0.0))

    def added(self, wholes: Any, count: int) -> Took:
        """Return what each of so many wholes takes, its parts one after the other, in the order in which they stand.

        Args:
            wholes: the number of the whole to which each part belongs.
        """
        return Took(*(load_numpy().bincount(wholes, each, count) for each in self))

    def merged(self, wholes: Any, *, at_once: bool = False) -> tuple[Took, Any]:
        """Return what each whole takes that there is, in the order in which they begin, and where each begins.

        Args:
            wholes: the number of the whole to which each part belongs.
            at_once: the parts of a whole are done at the same time.
        """
        np = load_numpy()
        count, places = int(wholes.max(initial=-1)) + 1, np.arange(len(wholes))
        first = np.full(count, len(wholes))
        np.minimum.at(first, wholes, places)
        begin = np.flatnonzero(first[wholes] == places)
        took = self.added(wholes, count)
        if at_once:
            longest = np.zeros(count)
            with np.errstate(invalid="ignore"):  # NaN is the maximum of NaN and a number
                np.maximum.at(longest, wholes, self.latency_s)
            took = took._replace(latency_s=longest)
        return took.at(wholes[begin]), begin

    def at(self, places: Any) -> Took:
        """Return the elements at these places."""
        return Took(*(each[places] for each in self))

    def of(self, seats: Any) -> Took:
        """Return what these seats take."""
        return Took(*(each[:, seats] for each in self))

    def where(self, is_so: Any) -> Took:
        """Return the same, and nothing where it is not so."""
        return Took(*(load_numpy().where(is_so, each, 0.0) for each in self))

    def along(self, order: Any) -> Took:
        """Return the seats of each record in this order."""
        return Took(*(load_numpy().take_along_axis(each, order, axis=1) for each in self))

    def paid_for(self, failed: Any) -> Took:
        """Return the same of texts: one that came though no call is known of was not free for that."""
        return self._replace(unknown=load_numpy().where((self.calls == 0) & ~failed, 1.0, self.unknown))


class CallSums(Struct):
    """What each record's calls took, by who needs them."""

    panel: Took
    judge: Took
    #: All that the fusion's answer took.
    fusion: Took
    #: The calls of each seat's response in the first layer, and of each baseline's: `records × seats`.
    members: Took
    baselines: Took


class CallOwner(NamedTuple):
    """What a call was for, who made it, and who answered it."""

    stage: str
    layer: int
    step: str | None
    member: str | None
    sample: int
    model: str
    endpoint: str

    @property
    def lane(self) -> _Lane:
        """Return what comes before or after others: within it all seats work at once."""
        return self.stage, self.layer, self.step

    @property
    def seat(self) -> Seat:
        """Return whose it was; of a call that is no member's, nobody's."""
        return self.member or "", self.sample


class CallTable:
    """The calls of some records, read one by one."""

    def __init__(self) -> None:
        #: The number of everybody whose calls there are; the keys have the fields of `CallOwner`.
        self._numbers: dict[tuple[Any, ...], int] = defaultdict(itertools.count().__next__)
        #: One behind the other, so many for each call: its owner, what it was worth, its tokens, its seconds.
        self._calls: list[Any] = []
        #: How many calls each record has.
        self._counts: list[int] = []

    @property
    def owners(self) -> list[CallOwner]:
        """Return everybody whose calls there are."""
        return [CallOwner(*owner) for owner in self._numbers]

    def add(self, calls: Iterable[Mapping[str, Any]]) -> None:
        """Take the calls of the next record."""
        numbers, kept = self._numbers, self._calls
        before = len(kept)
        for call in calls:
            # A grade measures: no system pays for it.
            if (stage := call["stage"]) == "grade":
                continue
            number = numbers[
                stage, call.get("layer", 1), call.get("step"), call.get("member"), call.get("sample", 0),
                call["model"], call["endpoint"],
            ]  # fmt: skip
            usage = call.get("usage")
            tokens = usage["prompt_tokens"] + usage["completion_tokens"] if usage else 0
            # A replayed call is worth what it cost when it was bought.
            if call.get("replayed"):
                kept += (number, call.get("saved_usd"), tokens, math.nan)
            else:
                kept += (number, call.get("cost_usd"), tokens, call.get("latency_s", 0.0))
        self._counts.append((len(kept) - before) // 4)

    def add_up(self, seats: Mapping[Seat, int], rounds: Any) -> CallSums:
        """Return what the calls of each record took.

        A seat's attempts come one after the other, and so do stages, layers and steps, and the rounds of a panel that
        was asked until it was sure; within one of these all seats work at once.

        Args:
            seats: the number of each seat.
            rounds: in which round each seat of a panel was asked, from 0: `records × seats`.
        """
        np, owners, records = load_numpy(), self.owners, len(self._counts)
        number, usd, tokens, latency_s = columns_of(self._calls, 4)
        owner, record, is_unknown = number.astype(np.intp), np.arange(records).repeat(self._counts), np.isnan(usd)
        lanes, lane_of = _number([each.lane for each in owners])
        places, place_of = _number([(each.lane, each.seat) for each in owners])
        lane, seat = lane_of[owner], np.array([seats.get(each.seat, 0) for each in owners], np.intp)[owner]
        took = Took(np.ones(len(record)), np.where(is_unknown, 0.0, usd), is_unknown, tokens, latency_s)

        # What each seat took in each lane.
        took, begin = took.merged(record * len(places) + place_of[owner])
        record, lane, seat = record[begin], lane[begin], seat[begin]

        def by_seat(wanted: Sequence[bool]) -> Took:
            own = np.array(wanted, bool)[lane]
            sums = took.at(own).added(record[own] * len(seats) + seat[own], records * len(seats))
            return Took(*(each.reshape(records, len(seats)) for each in sums))

        # A step is a call about responses, none of a member's own.
        members = by_seat([stage == "panel" and layer == 1 and step is None for stage, layer, step in lanes])
        baselines = by_seat([stage == "baseline" for stage, *_ in lanes])

        # What each lane took, round for round.
        is_panel = np.array([stage == "panel" for stage, *_ in lanes], bool)
        asked_in = np.full(len(record), NO_ROUND)
        own = is_panel[lane]
        asked_in[own] = rounds[record[own], seat[own]]
        asked_in -= NO_ROUND
        most = int(asked_in.max(initial=0)) + 1
        took, begin = took.merged((record * len(lanes) + lane) * most + asked_in, at_once=True)
        record, lane = record[begin], lane[begin]

        def by_record(wanted: Sequence[bool]) -> Took:
            own = np.array(wanted, bool)[lane]
            return took.at(own).added(record[own], records)

        panel, judge = by_record(is_panel), by_record([stage == "judge" for stage, *_ in lanes])
        rest = by_record([stage not in ("panel", "judge", "baseline") for stage, *_ in lanes])
        return CallSums(panel, judge, panel.then(judge).then(rest), members, baselines)


def columns_of(numbers: list[Any], width: int) -> Any:
    """Return numbers that stand one behind the other as columns; None is NaN."""
    return load_numpy().fromiter(numbers, float, len(numbers)).reshape(-1, width).T


def _number(names: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the different names, and of each of the names the number that it has among these."""
    different = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return list(different), load_numpy().array([different[name] for name in names], int)
