"""Let the responses vote: the majority's answer, word for word; no model is asked.

Reads   messages, panel; analysis where it breaks a tie
Adds    answer, with the count in `answer.vote`; for `--threshold`, `answer.abstained` in the place of a text
Calls   none
Fails   all_failed when no response is usable; where nobody can be counted, the best response is the answer, and
        `nothing_to_count` stands in `degraded`; `abstained` and `threshold_void` say why there is no answer
Source  Wang et al. 2022, self-consistency, arXiv:2203.11171 (the vote, and `--weights logprob`); Fu et al. 2025,
        DeepConf, arXiv:2508.15260 (`--drop-lowest`); Angelopoulos et al. 2022, conformal risk control, arXiv:2208.02814
        (`--threshold`)
"""

from __future__ import annotations

from typing import Any

from fusiontools.answers.keys import check_key
from fusiontools.config.options import OptionsFor
from fusiontools.config.stage_table import VoteOptions
from fusiontools.errors import InputError, UsageError
from fusiontools.record import sections
from fusiontools.record.sections import is_solo, texts_of, usable_responses
from fusiontools.record.types import Degraded, Record
from fusiontools.stages.ballot import Ballot, cast, note_not_weighed, note_unknown_weights
from fusiontools.stages.runtime import Runtime, Stage, compare_apart, copy_response, reads_panel, with_section
from fusiontools.stages.threshold import Threshold, load_threshold, panel_digest


def vote(options_for: OptionsFor[VoteOptions]) -> Stage:
    """Return the stage."""

    @reads_panel("vote")
    async def run(record: Record, runtime: Runtime) -> Record:
        options = options_for(record)
        try:
            check_key(options.key)
        except UsageError as error:
            raise InputError(f"{error.message}; give another with --key", "$.recipe.vote.key") from error
        if options.weighing == "learned" and not options.learned:
            raise InputError(
                "--weights learned: there are none; give the recipe that fuse-tune wrote with -c", "$.recipe.vote"
            )
        # Who answers alone was not counted when the threshold was fitted.
        threshold = None if options.threshold is None or is_solo(record) else load_threshold(options.threshold)
        usable = usable_responses(record)
        if len(usable) == 1 and threshold is None:
            return copy_response(record, usable[0][0], sections.one_survivor(record, "vote"))
        return await compare_apart(texts_of(record), options.key, _voted, record, options, threshold)

    return run


def _voted(record: Record, options: VoteOptions, threshold: Threshold | None) -> Record:
    notes = [*note_unknown_weights(record, options), *note_not_weighed(record, options)]
    ballot, position, uncounted = cast(record, options)
    if threshold is not None and (why := _why_not(record, options, ballot, threshold)):
        return with_section(record, "answer", _abstention(ballot, threshold), degraded=[*notes, *why])
    if uncounted:
        return copy_response(record, position, [*notes, *uncounted])
    if len(usable_responses(record)) == 1:
        notes += sections.one_survivor(record, "vote")
    answer = sections.take_verbatim(record, position, "vote", vote=ballot.section())
    return with_section(record, "answer", answer, degraded=notes)


def _why_not(record: Record, options: VoteOptions, ballot: Ballot, threshold: Threshold) -> list[Degraded]:
    """Return why a record is not answered; nothing where it is."""
    if panel_digest(record, options) != threshold.panel:
        detail = "the panel, or how its votes count, is not what the threshold was fitted on: fit it anew"
        return [{"stage": "vote", "code": "threshold_void", "detail": detail}]
    if ballot.tally is not None and ballot.agreement >= threshold.agreement:
        return []
    detail = f"{ballot.agreement:.0%} of the votes agree, {threshold.agreement:.0%} are asked for"
    return [{"stage": "vote", "code": "abstained", "detail": detail}]


def _abstention(ballot: Ballot, threshold: Threshold) -> Any:
    said = {"agreement": round(ballot.agreement, 4), "threshold": threshold.agreement, "risk": threshold.risk}
    counted = {} if ballot.tally is None else {"vote": ballot.section()}
    nothing = {"content": "", "by": "vote", "model": "", "finish_reason": "stop", "tool_calls": []}
    return nothing | counted | {"abstained": said}
