"""Claims: what the responses hold, who stands behind each and who contradicts it; and which of them enough hold.

A judge names responses by label and may name some that do not exist, or one on both sides; what cannot be told counts
against a claim, never for it: a claim that is taken for contested is looked at again, one that is taken for settled
is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from fusiontools.answers.keys import read_responses
from fusiontools.answers.lexical import shorten
from fusiontools.record.sections import display_names, question_text, usable_positions, usable_responses
from fusiontools.record.types import Degraded, Holder, NamedClaim, PanelClaim, Record, Support
from fusiontools.stages.analysis import claim as plain
from fusiontools.stages.analysis import strict_object
from fusiontools.stages.replies import label_in, labels_in, object_in

#: Of more, those that somebody contradicts are kept first, and the rest is said to be left out.
MOST_CLAIMS = 64
#: What judges call the parts of a claim.
_CLAIM = ("claim", "statement", "point", "text", "assertion")
_BEHIND = ("supporters", "support", "supported_by", "for", "held_by", "models")
_AGAINST = ("opponents", "oppose", "opposed_by", "against", "contradicted_by")
_MODEL = ("model", "response", "label", "member", "name")
_QUOTE = ("quote", "words", "text", "evidence", "where", "stance")
_NOBODY = frozenset({"", "none", "nobody", "no one", "n/a", "-", "null"})
_QUOTATION_MARKS = "\"'“”‘’«»„… "


class ReadClaims(NamedTuple):
    """The claims of one reply, and what is wrong with it, in words."""

    claims: list[PanelClaim]
    problems: list[str]


def claims_schema() -> dict[str, Any]:
    """Return the JSON schema of the claims in a judge's reply."""
    text: dict[str, Any] = {"type": "string"}
    holders = {"type": "array", "items": strict_object(model=text, quote=text)}
    return {"type": "array", "items": strict_object(claim=text, supporters=holders, opponents=holders)}


def read_claims(reply: str, labels: Mapping[str, int], names: Mapping[str, str]) -> ReadClaims:
    """Return the claims of a judge's reply, which names labels.

    Args:
        names: what the response behind each label is called.
    """
    said = object_in(reply, "claims").get("claims")
    items = said if isinstance(said, list) else [said] if said else []
    if not items:
        return ReadClaims([], ["the analysis has no claims; its reply may have been cut off"])
    unknown: list[str] = []
    empty = 0
    found: list[PanelClaim] = []
    for item in items:
        said = _first_of(item, _CLAIM) if isinstance(item, dict) else ""
        words = " ".join(said.split()) if isinstance(said, str) else ""
        behind, against = (
            _read_holders(_first_of(item, called), labels, unknown) if words else [] for called in (_BEHIND, _AGAINST)
        )
        if behind or against:
            found.append({"claim": shorten(words), "supporters": behind, "opponents": against})
        else:
            empty += 1
    merged, torn = _merge([[each] for each in found])
    problems = [_count(empty, "claim", "without words, or held and contradicted by nobody")] if empty else []
    if unknown:
        problems.append(f"{_count(len(unknown), 'name', 'in the claims of no response')}: {unknown[0][:40]!r}")
    if torn:
        problems.append(
            f"{_count(len(torn), 'claim', 'with a response on both sides, counted against it')}: {torn[0]!r}"
        )
    kept, too_many = bounded(renamed(merged, names))
    return ReadClaims(kept, problems + too_many)


def bounded(claims: Sequence[PanelClaim]) -> ReadClaims:
    """Return at most `MOST_CLAIMS` of them in their order; of more, those that somebody contradicts come first."""
    if len(claims) <= MOST_CLAIMS:
        return ReadClaims(list(claims), [])
    first = sorted(range(len(claims)), key=lambda i: not claims[i]["opponents"])
    left_out = [claims[i] for i in first[MOST_CLAIMS:]]
    who = dict.fromkeys(holder["model"] for each in left_out for holder in _everyone(each))
    problem = f"{len(claims)} claims: {len(left_out)} are left out, of {', '.join(who)}"
    return ReadClaims([claims[i] for i in sorted(first[:MOST_CLAIMS])], [problem])


def merge_claims(
    readings: Sequence[Sequence[PanelClaim]], judges: Sequence[str]
) -> tuple[list[PanelClaim], list[list[str]]]:
    """Return the claims of several readings, each once, and for each the judges that report it.

    A response stands where most of the readings that name it have it; where that is even, it contradicts.
    """
    merged, _ = _merge(readings)
    said = [{plain(each["claim"]) for each in reading} for reading in readings]
    behind = [
        [judge for judge, own in zip(judges, said, strict=True) if plain(each["claim"]) in own] for each in merged
    ]
    return merged, [list(dict.fromkeys(each)) for each in behind]


def _merge(readings: Sequence[Sequence[PanelClaim]]) -> tuple[list[PanelClaim], list[str]]:
    """Return each claim once, and those of which a response was on both sides as often."""
    groups: dict[str, list[PanelClaim]] = {}
    for each in (each for reading in readings for each in reading):
        groups.setdefault(plain(each["claim"]) or each["claim"], []).append(each)
    merged: list[PanelClaim] = []
    torn: list[str] = []
    for group in groups.values():
        whole: PanelClaim = {"claim": group[0]["claim"], "supporters": [], "opponents": []}
        behind = [holder for each in group for holder in each["supporters"]]
        against = [holder for each in group for holder in each["opponents"]]
        for name in dict.fromkeys(holder["model"] for holder in (*behind, *against)):
            for_it, against_it = ([h for h in side if h["model"] == name] for side in (behind, against))
            if len(for_it) > len(against_it):
                whole["supporters"].append(for_it[0])
            else:
                whole["opponents"].append(against_it[0])
            if len(for_it) == len(against_it) and whole["claim"] not in torn:
                torn.append(whole["claim"])
        merged.append(whole)
    return merged, torn


def renamed(claims: Sequence[PanelClaim], names: Mapping[str, str]) -> list[PanelClaim]:
    """Return the claims with those who hold and contradict them renamed."""

    def rename(holder: Holder) -> Holder:
        return {**holder, "model": names.get(holder["model"], holder["model"])}

    return [_with_each(each, rename) for each in claims]


def located(claims: Sequence[PanelClaim], texts: Mapping[str, str]) -> list[PanelClaim]:
    """Return the claims with each quotation as it stands in its response, and where; one that stands nowhere is kept.

    Args:
        texts: what each response says, by the name that the claims call it.
    """
    return [_with_each(each, lambda holder: _locate(holder, texts.get(holder["model"], ""))) for each in claims]


def _with_each(claim: PanelClaim, change: Callable[[Holder], Holder]) -> PanelClaim:
    """Return a claim with everybody who holds or contradicts it changed."""
    behind, against = ([change(holder) for holder in side] for side in (claim["supporters"], claim["opponents"]))
    return {"claim": claim["claim"], "supporters": behind, "opponents": against}


def _everyone(claim: PanelClaim) -> list[Holder]:
    return [*claim["supporters"], *claim["opponents"]]


def _locate(holder: Holder, text: str) -> Holder:
    words = holder.get("quote", "").strip(_QUOTATION_MARKS).split()
    if not words:
        return {"model": holder["model"]}
    quote = " ".join(words)
    at = text.find(quote)
    if at < 0:
        # Line ends and capitals are a judge's to change.
        found = re.search(r"\s+".join(map(re.escape, words)), text, re.IGNORECASE)
        if found is None:
            return {"model": holder["model"], "quote": quote}
        at, quote = found.start(), found[0]
    return {"model": holder["model"], "quote": quote, "at": at}


def claims_by_code(record: Record) -> ReadClaims:
    """Return what code makes of the responses, without a call."""
    from fusiontools.answers.lexical_claims import find_claims

    names, usable = display_names(record["panel"]), usable_responses(record)
    votes = read_responses([response for _, response in usable], question=question_text(record))
    texts = {names[i]: response.get("content") or "" for i, response in usable}
    found, problems = bounded(find_claims(texts, votes))
    return ReadClaims(located(found, texts), problems)


def claims_of_analysis(analysis: Mapping[str, Any], names: Sequence[str]) -> list[PanelClaim]:
    """Return the findings of an analysis without claims as claims.

    Of a stance, the others on its topic are the opponents. A consensus has no names: more than half hold it, and who
    that is nobody has said.
    """

    def holders(models: Sequence[str]) -> list[Holder]:
        return [{"model": model} for model in dict.fromkeys(models) if model in names]

    found: list[PanelClaim] = []
    for each in analysis.get("contradictions", []):
        stances: dict[str, list[str]] = {}
        for stance in each["stances"]:
            stances.setdefault(stance["stance"], []).append(stance["model"])
        for words, models in stances.items():
            others = [model for other, theirs in stances.items() if other != words for model in theirs]
            found.append(
                {
                    "claim": shorten(f"{each['topic']}: {words}" if each["topic"] else words),
                    "supporters": holders(models),
                    "opponents": holders([model for model in others if model not in models]),
                }
            )
    found_by = [(each["point"], each["models"]) for each in analysis.get("partial_coverage", [])]
    found_by += [(each["insight"], [each["model"]]) for each in analysis.get("unique_insights", [])]
    return [*found, *(PanelClaim(claim=words, supporters=holders(who), opponents=[]) for words, who in found_by)]


class Weighed(Struct, frozen=True):
    """Which claims so many responses hold.

    Args:
        least: how many must hold a claim.
        of: how many responses there are.
        source: what the claims were taken from.
        notes: what did not go as asked.
    """

    least: int
    of: int
    source: Literal["claims", "analysis", "code"]
    kept: list[PanelClaim]
    contested: list[PanelClaim]
    notes: list[Degraded] = []

    def section(self) -> Support:
        """Return what an answer keeps of it."""
        return {
            "min_support": self.least,
            "of": self.of,
            "source": self.source,
            "kept": [_only_names(each) for each in self.kept],
            "contested": [_only_names(each) for each in self.contested],
        }

    def shown(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return what a synthesizer sees of it: labels in the place of names."""
        sides = {"kept_claims": self.kept, "contested_claims": self.contested}
        told = {key: [_only_names(each) for each in renamed(claims, labels)] for key, claims in sides.items()}
        return {"min_support": self.least, **told}

    def told_in(self, record: Record) -> Record:
        """Return the record, whose answer was written by it, with what was left out or marked, and who held it."""
        told = record.get("degraded", [])
        # A revision takes over what was said of the answer that it revises.
        notes = [*told, *(note for note in (*self.notes, *self._dissent()) if note not in told)]
        new: Any = {**record, "answer": {**record["answer"], "support": self.section()}}
        return new | {"degraded": notes} if notes else new  # type: ignore[no-any-return]

    def _dissent(self) -> list[Degraded]:
        if not self.contested:
            return []
        who = ", ".join(dict.fromkeys(holder["model"] for each in self.contested for holder in each["supporters"]))
        count = _count(len(self.contested), "claim", f"held by fewer than {self.least} of {self.of} responses")
        first = shorten(self.contested[0]["claim"], 80)
        detail = f"{count} ({who or 'nobody in particular'}; first: {first!r}): answer.support has them"
        return [{"stage": "synth", "code": "contested", "detail": detail}]


def weigh(record: Record, asked: int) -> Weighed:
    """Return which claims of a record at least so many responses hold, as far as there are so many."""
    names = display_names(record["panel"])
    present = [names[i] for i in usable_positions(record)]
    least = min(asked, len(present))
    notes: list[Degraded] = []

    def note(code: Any, detail: str) -> None:
        notes.append({"stage": "synth", "code": code, "detail": f"--min-support {asked}: {detail}"})

    if least < asked:
        came = "one response" if len(present) == 1 else f"{len(present)} responses"
        note("few_responses", f"{came} came; what all of them hold is kept")
    if len(present) == 1:
        return Weighed(least, 1, "code", [], [], notes)
    analysis: Any = record.get("analysis")
    agreed: list[PanelClaim] = []
    source: Literal["claims", "analysis", "code"]
    if analysis is not None and "claims" in analysis:
        source, claims = "claims", analysis["claims"]
    elif analysis is not None:
        source, claims = "analysis", claims_of_analysis(analysis, present)
        agreed = [{"claim": each, "supporters": [], "opponents": []} for each in analysis["consensus"]]
        note("no_claims", "the analysis has no claims (fuse-judge --claims): taken from what else it found")
    else:
        source, (claims, problems) = "code", claims_by_code(record)
        note("no_claims", "; ".join(["no analysis: code has compared the responses", *problems]))
    own = [_present_only(each, present) for each in claims]
    kept = [each for each in own if len(each["supporters"]) >= least]
    contested = [each for each in own if len(each["supporters"]) < least]
    # Of a consensus it is known that more than half hold it, and no more.
    if least <= len(present) // 2 + 1:
        kept = agreed + kept
    else:
        contested = agreed + contested
    return Weighed(least, len(present), source, kept, contested, notes)


def _present_only(claim: PanelClaim, present: Sequence[str]) -> PanelClaim:
    """Return a claim with those who are on the panel, each once; who is on both sides contradicts it."""
    against = {h["model"]: h for h in claim["opponents"] if h["model"] in present}
    behind = {h["model"]: h for h in claim["supporters"] if h["model"] in present and h["model"] not in against}
    return {"claim": claim["claim"], "supporters": list(behind.values()), "opponents": list(against.values())}


def _only_names(claim: PanelClaim) -> NamedClaim:
    behind, against = ([holder["model"] for holder in side] for side in (claim["supporters"], claim["opponents"]))
    return {"claim": claim["claim"], "supporters": behind, "opponents": against}


def _read_holders(said: Any, labels: Mapping[str, int], unknown: list[str]) -> list[Holder]:
    """Return who is named on one side of a claim, and the words of each; names of nobody are added to `unknown`."""
    found: dict[str, Holder] = {}
    for names, quote in _named(said, labels):
        for name in names:
            if name in labels:
                found.setdefault(name, {"model": name, "quote": shorten(quote)} if quote else {"model": name})
            else:
                unknown.append(name)
    return list(found.values())


def _named(said: Any, labels: Mapping[str, int]) -> Iterator[tuple[list[str], str]]:
    if isinstance(said, list):
        for item in said:
            yield from _named(item, labels)
    elif isinstance(said, dict):
        named = _first_of(said, (*_MODEL, "models", "responses"))
        if named:
            yield labels_in(named, labels), str(_first_of(said, _QUOTE))
        else:
            # `{"A": "its words"}`
            for name, words in said.items():
                yield [label_in(name, labels)], words if isinstance(words, str) else ""
    elif said and str(said).strip().casefold() not in _NOBODY:
        yield labels_in(str(said), labels), ""


def _first_of(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key)), "")


def _count(number: int, noun: str, what: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'} {what}"
