"""From which agreement on may a vote be answered, so that no more than a stated share of the answers is wrong?

Of all questions asked (`asked`): conformal risk control. An answer below the threshold loses nothing, one above it
loses what it lacks of a full score, so that the loss falls as the threshold rises; the lowest threshold is taken at
which the mean loss, with one question more that is lost altogether, is within the risk. Then the expected loss on the
next question is within the risk, whatever the panel is, as long as that question is like those here. It holds on
average over questions and over what was graded, not for each question.

Of the questions answered (`answered`): that share does not fall with every step, so thresholds are tested from the
highest down, each against the risk, exactly, and the last before the first failure is taken (fixed-sequence testing).
With the confidence that was asked for, the share of wrong answers is then within the risk.

Source  Angelopoulos, Bates, Fisch, Lei and Schuster 2022, conformal risk control, arXiv:2208.02814; Angelopoulos et al.
        2021, learn then test, arXiv:2110.01052
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from fusiontools.answers.normalize import fold, tokens
from fusiontools.config.stage_table import VoteOptions
from fusiontools.errors import UsageError
from fusiontools.evaluation.report.reliability import AgreementPart, sort_by_agreement
from fusiontools.record.sections import question_text, usable_responses
from fusiontools.record.types import Record
from fusiontools.stages.ballot import cast
from fusiontools.stages.threshold import Threshold, panel_digest

#: Nothing is answered from here on.
NEVER = 2.0


class Counted(Struct, frozen=True):
    """One vote: which share of the panel agrees, and how good the answer of the vote is."""

    question: str
    agreement: float
    score: float


class Calibration(Struct):
    """Takes graded records one by one, as `fuse-vote` would answer them."""

    records: int = 0
    #: Records without grades of their panel, that failed, or that stand in another file, too.
    unused: int = 0
    apart: int = 0
    votes: list[Counted] = []
    panels: dict[str, int] = {}
    _elsewhere: set[str] = set()
    _ids: set[tuple[str, int]] = set()
    _repeated: int = 0

    def keep_apart(self, record: Record) -> None:
        """Leave out what asks the same as a record."""
        self._elsewhere.add(_words_of(record))

    def add(self, record: Record, options: VoteOptions) -> None:
        """Take a record's vote."""
        self.records += 1
        grades = [grade for grade in record.get("grades") or [] if grade["of"] == "panel"]
        if "error" in record or len(grades) != len(record.get("panel", [])) or not usable_responses(record):
            self.unused += 1
            return
        question = _words_of(record)
        if question in self._elsewhere:
            self.apart += 1
            return
        place = (record["id"], record.get("epoch") or 0)
        self._repeated += place in self._ids
        self._ids.add(place)
        digest = panel_digest(record, options)
        self.panels[digest] = self.panels.get(digest, 0) + 1
        ballot, position, _ = cast(record, options)
        counted = ballot.tally is not None
        self.votes.append(Counted(question, ballot.agreement if counted else 0.0, grades[position]["score"]))

    def fit(self, risk: float, of: Literal["asked", "answered"], confidence: float) -> Threshold:
        """Return the threshold.

        Raises:
            UsageError: ids repeat, or the records are of several panels.
        """
        if self._repeated:
            raise UsageError(f"{self._repeated:,} records repeat an id: a vote counts once; give each record once")
        if len(self.panels) > 1:
            raise UsageError(
                f"these records are of {len(self.panels)} different panels (members, prompts or weights differ): a "
                "threshold holds for one"
            )
        [panel] = self.panels
        groups = self.by_question()
        # Cut off and not rounded: who agrees as much as those here must not lie below by the last digit.
        levels = sorted({math.floor(vote.agreement * 1e6) / 1e6 for vote in self.votes if vote.agreement > 0})
        if of == "asked":
            found = next((level for level in levels if controls_asked(groups, level, risk)), NEVER)
        else:
            found = fit_answered(groups, levels, risk, confidence)
        answered, lost = _answered(groups, found), _lost(groups, found)
        count = len(groups)
        return Threshold(
            risk=risk,
            of=of,
            agreement=found,
            confidence=confidence if of == "answered" else None,
            panel=panel,
            questions=count,
            answered=answered / count,
            wrong=lost / count if of == "asked" else lost / answered if answered else 0.0,
        )

    def by_question(self) -> list[list[Counted]]:
        """Return the votes, those on one question together: they are one observation."""
        groups: dict[str, list[Counted]] = {}
        for vote in self.votes:
            groups.setdefault(vote.question, []).append(vote)
        return list(groups.values())

    def parts(self) -> list[AgreementPart]:
        """Return how often votes of each agreement are right."""
        return sort_by_agreement([(vote.agreement, vote.score) for vote in self.votes])


def controls_asked(groups: Sequence[Sequence[Counted]], level: float, risk: float) -> bool:
    """Return whether the expected loss on the next question is within the risk, where a level is asked for."""
    return (_lost(groups, level) + 1) / (len(groups) + 1) <= risk


def fit_answered(groups: Sequence[Sequence[Counted]], levels: Sequence[float], risk: float, confidence: float) -> float:
    """Return the lowest level down to which every one keeps the share of wrong answers within the risk, surely."""
    found = NEVER
    for level in reversed(levels):
        answered, lost = _answered(groups, level), _lost(groups, level)
        # So few answers prove nothing, whatever they are worth: go on to the next level rather than give up.
        if (1 - risk) ** answered > 1 - confidence:
            continue
        if _chance_of_so_few(math.ceil(lost - 1e-9), round(answered), risk) > 1 - confidence:
            break
        found = level
    return found


def _answered(groups: Sequence[Sequence[Counted]], level: float) -> float:
    """Return how many questions are answered; of one asked several times, the share of times."""
    return math.fsum(sum(v.agreement >= level for v in votes) / len(votes) for votes in groups)


def _lost(groups: Sequence[Sequence[Counted]], level: float) -> float:
    """Return what the answers given lack of full scores."""
    return math.fsum(math.fsum(1 - v.score for v in votes if v.agreement >= level) / len(votes) for votes in groups)


def _chance_of_so_few(wrong: int, answered: int, risk: float) -> float:
    """Return the chance of at most so many wrong answers where each is wrong with the risk."""
    if wrong >= answered:
        return 1.0
    logs = [
        math.lgamma(answered + 1) - math.lgamma(k + 1) - math.lgamma(answered - k + 1)
        + k * math.log(risk) + (answered - k) * math.log1p(-risk)
        for k in range(wrong + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(math.exp(each) for each in logs))


def _words_of(record: Record) -> str:
    return " ".join(tokens(fold(question_text(record)))) or record["id"]
