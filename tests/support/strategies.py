"""Records, good ones and damaged ones, as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fusiontools.config.stage_table import ANSWERING
from fusiontools.record.params import PARAMETERS
from fusiontools.record.types import Record

INTEGERS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WORD = st.text("abcdefghij_", min_size=1, max_size=8)
LEAVES = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
COUNTS = st.integers(0, 10**9)
MONEY = st.none() | st.floats(0, 1e6)

OURS = {*Record.__annotations__, *PARAMETERS, "prompt", "system", "body", "custom_id"}
UNKNOWN = st.dictionaries(TEXT.filter(lambda key: key not in OURS), JSON, max_size=3)

TOOL_CALL = st.fixed_dictionaries(
    {"id": WORD, "type": st.just("function"), "function": st.fixed_dictionaries({"name": WORD, "arguments": TEXT})}
)
PART = st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
        "content": TEXT | st.lists(PART, max_size=2),
    },
    optional={"name": WORD, "tool_calls": st.lists(TOOL_CALL, max_size=2), "tool_call_id": WORD},
)
MESSAGES = st.lists(MESSAGE, max_size=3).map(lambda messages: [*messages, {"role": "user", "content": "Why?"}])
ERROR = st.fixed_dictionaries({"code": WORD, "message": TEXT}, optional={"stage": WORD})
SLOT = {"member": WORD, "sample": COUNTS, "layer": st.integers(1, 9)}
RESPONSE = st.fixed_dictionaries(
    {**SLOT, "content": TEXT},
    optional={"finish_reason": WORD, "tool_calls": st.lists(TOOL_CALL, max_size=1), "mean_logprob": FLOATS},
) | st.fixed_dictionaries({**SLOT, "error": ERROR})
STANCE = st.fixed_dictionaries({"model": WORD, "stance": TEXT})
ANALYSIS = st.fixed_dictionaries(
    {
        "consensus": st.lists(TEXT, max_size=2),
        "contradictions": st.lists(
            st.fixed_dictionaries({"topic": TEXT, "stances": st.lists(STANCE, max_size=2)}), max_size=1
        ),
        "partial_coverage": st.lists(
            st.fixed_dictionaries({"models": st.lists(WORD, max_size=2), "point": TEXT}), max_size=1
        ),
        "unique_insights": st.lists(st.fixed_dictionaries({"model": WORD, "insight": TEXT}), max_size=1),
        "blind_spots": st.lists(TEXT, max_size=2),
    },
    optional={"ranking": st.lists(COUNTS, max_size=3), "agreement": st.floats(0, 1), "judges": st.lists(WORD)},
)
ANSWER = st.fixed_dictionaries(
    {"content": TEXT, "by": st.sampled_from([*ANSWERING, "panel", "solo"])},
    optional={"model": WORD, "finish_reason": WORD, "response": COUNTS},
)
CALL = st.fixed_dictionaries(
    {"stage": WORD, "model": WORD, "endpoint": WORD, "status": WORD},
    optional={"attempt": st.integers(1, 9), "cost_usd": MONEY, "saved_usd": MONEY, "replayed": st.booleans()},
)
NOTE = st.fixed_dictionaries({"stage": st.sampled_from(["panel", "judge", "synth", "theirs"]), "code": WORD})
GRADE = st.fixed_dictionaries(
    {
        "of": st.sampled_from(["answer", "panel", "layer", "baseline"]),
        "member": WORD,
        "sample": COUNTS,
        "layer": COUNTS,
        "grader": WORD,
        "score": st.floats(0, 1),
        "key": st.none() | TEXT,
    },
    optional={"said": TEXT},
)
RECORDS: st.SearchStrategy[Any] = st.builds(
    lambda known, unknown: {**known, **unknown},
    st.fixed_dictionaries(
        {"id": TEXT.filter(bool), "messages": MESSAGES},
        optional={
            "params": st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 9), "stop": TEXT}),
            "meta": st.dictionaries(TEXT, JSON, max_size=2),
            "recipe": st.dictionaries(WORD, JSON, max_size=2),
            "panel": st.lists(RESPONSE, min_size=1, max_size=3),
            "analysis": ANALYSIS,
            "answer": ANSWER,
            "epoch": st.integers(0, 3),
            "baselines": st.lists(RESPONSE, min_size=1, max_size=2),
            "grades": st.lists(GRADE, max_size=2),
            "calls": st.lists(CALL, max_size=2),
            "degraded": st.lists(NOTE, max_size=3),
            "error": ERROR,
        },
    ),
    UNKNOWN,
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A record in which one value, anywhere in it, has become another one or has gone."""
    whole = draw(RECORDS)
    holder, keys = whole, list(whole)
    for _ in range(draw(st.integers(0, 5))):
        inner = holder[draw(st.sampled_from(keys))]
        if not isinstance(inner, dict | list) or not inner:
            break
        holder, keys = inner, list(inner) if isinstance(inner, dict) else list(range(len(inner)))
    key = draw(st.sampled_from(keys))
    if draw(st.booleans()):
        holder[key] = draw(JSON)
    else:
        del holder[key]
    return whole
