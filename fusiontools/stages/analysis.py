"""The analysis as judges write it and as we read it: strict out, lenient in; several merged into one.

A judge names responses by label; `read_analysis` puts members' names in their place, `labelled_as` labels back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusiontools.answers.patterns import compile_later
from fusiontools.stages.replies import find_object, label_in, labels_in, object_in, ranked

#: OpenRouter Fusion's five keys, in their written order.
FIVE = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
#: Where the words of a finding stand that is no plain text.
_WORDING = {"contradictions": "topic", "partial_coverage": "point", "unique_insights": "insight"}
_PUNCTUATION = ".,;:!?…\"'“”‘’«»()[]*`_–—"
_GRAMMAR_TEXT = "a an the that this these those it its they their is are be being do does has have also"
_GRAMMAR = frozenset(_GRAMMAR_TEXT.split())
_RESPONSE = {"answer": "response", "reply": "response", "replie": "response"}
#: Turns of phrase of judges, in words that `claim` has made plain.
_AGREED = compile_later(r"^(?:(?:all|both|every|each)(?: of)? )?response(?: all)? (?:agree|say|state|note|mention) ")
_UNSAID = compile_later(
    r"^(?:(?:no|none of|neither)(?: of)? response|nobody|no one) (?:mention|discuss|address|cover|consider) "
)


def analysis_schema(**more: Any) -> dict[str, Any]:
    """Return the JSON schema that a judge's reply is constrained to: reasoning first, verdict after it.

    Args:
        more: the schemas of what else it shall report, behind all of that: a reply that is cut off loses it first.
    """
    text: dict[str, Any] = {"type": "string"}
    return strict_object(
        reasoning=text,
        consensus=_array(text),
        contradictions=_array(strict_object(topic=text, stances=_array(strict_object(model=text, stance=text)))),
        partial_coverage=_array(strict_object(models=_array(text), point=text)),
        unique_insights=_array(strict_object(model=text, insight=text)),
        blind_spots=_array(text),
        ranking=_array(text),
        **more,
    )


def read_analysis(text: str, labels: Mapping[str, int], names: Mapping[str, str]) -> dict[str, Any] | None:
    """Return a judge's reply as the five keys and `ranking` (panel positions); None if unreadable.

    Survived are plain strings where objects belong, and `position` for `stance`.

    Args:
        names: what the five keys call the response of each label.
    """
    data = find_object(text, lambda each: any(isinstance(each.get(key), list) for key in FIVE))
    if data is None:
        return None
    found: dict[str, Any] = {
        "consensus": [s for item in _read_items(data, "consensus") if (s := _string(item))],
        "contradictions": [
            c for item in _read_items(data, "contradictions") if (c := _read_contradiction(item, names))
        ],
        "partial_coverage": [p for item in _read_items(data, "partial_coverage") if (p := _read_coverage(item, names))],
        "unique_insights": [u for item in _read_items(data, "unique_insights") if (u := _read_insight(item, names))],
        "blind_spots": [s for item in _read_items(data, "blind_spots") if (s := _string(item))],
        "ranking": ranked(data.get("ranking"), labels)[0],
    }
    # A reply that was cut off can be mended into a shell with nothing in it; that is no analysis.
    return found if any(found.values()) else None


def unread_places(text: str, labels: Mapping[str, int]) -> list[str]:
    """Return the places of a judge's ranking that name no response, or more than one, as they stand there."""
    return ranked(object_in(text, "ranking").get("ranking"), labels)[1]


def merge_analyses(analyses: Sequence[dict[str, Any]], judges: Sequence[str] = ()) -> dict[str, Any]:
    """Return several readings as one analysis: what any of them found, once, and their rankings by Borda count.

    Args:
        analyses: readings that name the same response by the same name.
        judges: who made each reading; where more than one judge did, `supporters` says who found what.

    Findings stand in the order and in the words in which they were first made. A contradiction takes in the stances of
    members that had none there; a point takes in the members that make it.

    Source: Verga et al. 2024, arXiv:2404.18796 (a jury of judges).
    """
    if len(analyses) == 1:
        return dict(analyses[0])
    whole: dict[str, Any] = {}
    supporters: dict[str, list[list[str]]] = {}
    for key in FIVE:
        groups = _group(key, analyses)
        whole[key] = [_join(key, [item for _, item in group]) for group in groups]
        supporters[key] = [list(dict.fromkeys(judges[i] for i, _ in group if judges)) for group in groups]
    whole["ranking"] = borda([found["ranking"] for found in analyses])
    if len(set(judges)) > 1:
        whole["supporters"] = supporters
    return whole


def _group(key: str, analyses: Sequence[Mapping[str, Any]]) -> list[list[tuple[int, Any]]]:
    """Return the findings under one key, each with the number of its reading, grouped by what they say."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for i, found in enumerate(analyses):
        for item in found[key]:
            text = item if isinstance(item, str) else item[_WORDING[key]]
            of = item["model"] if key == "unique_insights" else None
            # Findings without words have nothing in common.
            said = claim(text)
            groups.setdefault((of, said) if said else len(groups), []).append((i, item))
    return list(groups.values())


def _join(key: str, items: Sequence[Any]) -> Any:
    """Return findings that say the same as one."""
    first = items[0]
    if key == "partial_coverage":
        return {**first, "models": list(dict.fromkeys(model for item in items for model in item["models"]))}
    if key == "contradictions":
        stances = list(first["stances"])
        for item in items[1:]:
            held = {stance["model"] or stance["stance"] for stance in stances}
            stances += [stance for stance in item["stances"] if (stance["model"] or stance["stance"]) not in held]
        return {**first, "stances": stances}
    return first


def claim(text: str) -> str:
    """Return what two findings must share to be the same one: the words that carry the meaning, in their order.

    Case, punctuation, plurals, grammar and a judge's turns of phrase are set aside. Another order of words, a number,
    a symbol or a negation makes another claim: a wrong union hides a finding, a missed one only repeats it.
    """
    words = [word for typed in text.split() if (word := typed.strip(_PUNCTUATION))]
    # Within a sentence, `A` is a name (`plan A`) and `a` is an article.
    meant = [word for i, word in enumerate(words) if (word if i else word.casefold()) not in _GRAMMAR]
    singular = [_singular(word.casefold()) for word in meant]
    plain = " ".join(_RESPONSE.get(word, word) for word in singular)
    return _UNSAID.sub("unsaid ", _AGREED.sub("", plain)) or plain


def _singular(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def borda(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Return positions by Borda count, best first; a ranking that leaves some out gives them no points."""
    count = max((len(ranking) for ranking in rankings), default=0)
    points: dict[int, int] = {}
    for ranking in rankings:
        for place, position in enumerate(ranking):
            points[position] = points.get(position, 0) + count - place
    return sorted(points, key=lambda position: (-points[position], position))


def labelled_as(analysis: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the five keys of an analysis with the responses that they name renamed."""
    return {
        "consensus": analysis["consensus"],
        "contradictions": [
            {**c, "stances": [{**s, "model": names.get(s["model"], s["model"])} for s in c["stances"]]}
            for c in analysis["contradictions"]
        ],
        "partial_coverage": [
            {**p, "models": [names.get(m, m) for m in p["models"]]} for p in analysis["partial_coverage"]
        ],
        "unique_insights": [{**u, "model": names.get(u["model"], u["model"])} for u in analysis["unique_insights"]],
        "blind_spots": analysis["blind_spots"],
    }


def _read_items(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if isinstance(value, list):
        return value
    return [value] if value else []


def _string(item: Any) -> str:
    if isinstance(item, str):
        return item.strip()
    if isinstance(item, dict):
        texts: list[str] = [value.strip() for value in item.values() if isinstance(value, str)]
        return next((text for text in texts if text), "")
    return ""


def _member(said: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return whose response is named here; what names none stays as it is."""
    label = label_in(said.get("model") or said.get("response") or said.get("label") or "", names)
    return names.get(label, label)


def _read_contradiction(item: Any, names: Mapping[str, str]) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        return {"topic": _string(item), "stances": []} if _string(item) else None
    stances = []
    held = item.get("stances") or item.get("positions")
    if isinstance(held, dict):
        held = [{"model": model, "stance": stance} for model, stance in held.items()]
    for stance in held if isinstance(held, list) else []:
        if isinstance(stance, dict):
            words = stance.get("stance") or stance.get("position") or stance.get("view") or stance.get("claim") or ""
            stances.append({"model": _member(stance, names), "stance": str(words)})
        elif _string(stance):
            stances.append({"model": "", "stance": _string(stance)})
    topic = str(item.get("topic") or item.get("point") or item.get("issue") or item.get("description") or "")
    return {"topic": topic, "stances": stances} if topic or stances else None


def _read_coverage(item: Any, names: Mapping[str, str]) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        return {"models": [], "point": _string(item)} if _string(item) else None
    point = str(item.get("point") or item.get("topic") or item.get("insight") or item.get("description") or "")
    if not point:
        return None
    models = item.get("models") or item.get("model") or item.get("responses") or []
    return {"models": [names.get(label, label) for label in labels_in(models, names)], "point": point}


def _read_insight(item: Any, names: Mapping[str, str]) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        return {"model": "", "insight": _string(item)} if _string(item) else None
    insight = str(item.get("insight") or item.get("point") or item.get("description") or "")
    return {"model": _member(item, names), "insight": insight} if insight else None


def strict_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}
