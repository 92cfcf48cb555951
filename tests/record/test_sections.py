"""The envelope: what a record keeps, what a new section drops, and that types and schemas are one law."""

from __future__ import annotations

import copy
import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from fusiontools.errors import InputError
from fusiontools.record import jsonl, schemas
from fusiontools.record.sections import DERIVED, MAKERS, question_id, with_error, with_section
from fusiontools.record.types import (
    Analysis,
    Answer,
    Call,
    Degraded,
    Grade,
    Message,
    Record,
    RecordError,
    Response,
    ToolCall,
)

INTEGERS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WORD = st.text("abcdefghij_", min_size=1, max_size=8)
LEAVES = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
COUNTS = st.integers(0, 10**9)
MONEY = st.none() | st.floats(0, 1e6)

OURS = {*Record.__annotations__, *jsonl.REQUEST_KEYS, "prompt", "system", "body", "custom_id"}
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
    {"content": TEXT, "by": st.sampled_from(["synth", "panel", "vote", "pick", "solo"])},
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

TYPES = {
    "record": (Record, ()),
    "panel": (Response, ("$defs", "response")),
    "analysis": (Analysis, ()),
    "answer": (Answer, ()),
    "calls": (Call, ("$defs", "call")),
    "degraded": (Degraded, ("items",)),
    "grades": (Grade, ("items",)),
    "error": (RecordError, ()),
    "messages": (Message, ("$defs", "message")),
    "tool_call": (ToolCall, ()),
}


def reference_validator(name: str) -> Draft202012Validator:
    registry: Any = Registry().with_resources(
        [(schemas.load(n)["$id"], Resource.from_contents(schemas.load(n))) for n in schemas.names()]
    )
    return Draft202012Validator(schemas.load(name), registry=registry)


REFERENCE = reference_validator("record")


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


@given(RECORDS)
def test_a_written_record_is_read_back_as_it_was(whole: Any) -> None:
    line = jsonl.write(whole)

    assert line.count(b"\n") == 1
    assert jsonl.parse(line) == whole
    assert list(jsonl.parse(line)) == list(whole)


@given(RECORDS, st.sampled_from(sorted(DERIVED)))
def test_a_new_section_drops_what_is_derived_and_nothing_else(whole: Any, section: str) -> None:
    before = copy.deepcopy(whole)
    value: Any = {"new": True}
    call: Any = {"stage": "s", "model": "m", "endpoint": "e", "status": "ok"}

    after = with_section(whole, section, value, [call])

    gone = {section, *DERIVED[section]}
    owners = {maker for name, makers in MAKERS.items() if name in gone for maker in makers}
    kept = {key: value for key, value in before.items() if key not in {*gone, "calls", "degraded"}}
    noted = [note for note in before.get("degraded", []) if note["stage"] not in owners]
    assert whole == before
    assert after[section] is value  # type: ignore[literal-required]
    assert after["calls"] == [*before.get("calls", []), call]
    assert after.get("degraded", []) == noted
    assert {k: v for k, v in after.items() if k not in (section, "calls", "degraded")} == kept


@given(RECORDS)
def test_a_stage_without_a_result_leaves_no_section_behind(whole: Any) -> None:
    after = with_section(whole, "analysis", None)

    assert not {"analysis", "answer", "grades"} & after.keys()


def test_a_second_panel_drops_the_notes_of_all_that_followed_the_first() -> None:
    notes: Any = [{"stage": stage, "code": "c", "detail": ""} for stage in ("panel", "judge", "synth", "route")]
    old: Record = {"id": "1", "messages": [], "degraded": notes}

    assert with_section(old, "panel", [])["degraded"] == [notes[3]]
    assert with_section(old, "analysis", None)["degraded"] == [notes[0], notes[3]]
    assert with_section(old, "answer", {})["degraded"] == [notes[0], notes[1], notes[3]]


@given(RECORDS)
def test_a_failed_record_keeps_everything_and_says_why(whole: Any) -> None:
    before = copy.deepcopy(whole)

    after = with_error(whole, "panel", "all_failed", "nobody answered")

    assert whole == before
    assert after == {**before, "error": {"stage": "panel", "code": "all_failed", "message": "nobody answered"}}


@given(MESSAGES, UNKNOWN)
def test_an_id_depends_on_the_messages_only(messages: Any, unknown: dict[str, Any]) -> None:
    reordered = [dict(reversed(list(message.items()))) for message in messages]
    one, other = {**unknown, "messages": messages}, {"messages": reordered, "params": {"stop": "x"}}

    ids = [jsonl.parse(jsonl.dumps(data))["id"] for data in (one, other)]

    assert ids == [question_id(messages)] * 2


def test_an_id_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert question_id([{"role": "user", "content": "Why?"}]) == "51ce2e32ea943357"


@given(MESSAGES, MESSAGES)
def test_other_messages_have_another_id(one: Any, other: Any) -> None:
    assert (question_id(one) == question_id(other)) == (one == other)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30, 10**300])
def test_an_integer_of_more_than_64_bits_is_refused(number: int) -> None:
    line = json.dumps({"prompt": "Why?", "meta": {"n": number}}).encode()

    with pytest.raises(InputError, match="more than 64 bits; write it as a string"):
        jsonl.parse(line)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63)])
def test_an_integer_of_64_bits_passes_untouched(number: int) -> None:
    assert jsonl.parse(json.dumps({"prompt": "Why?", "meta": {"n": number}}).encode())["meta"]["n"] == number


def test_digits_inside_a_string_are_no_integer() -> None:
    digits = "1234567890" * 3

    assert jsonl.parse(jsonl.dumps({"prompt": digits}))["messages"][0]["content"] == digits


def test_a_nesting_too_deep_to_check_is_refused_in_words() -> None:
    line = b'{"prompt": "x", "meta": {"n": 1234567890123456789, "a": ' + b"[" * 1000 + b"]" * 1000 + b"}}"

    with pytest.raises(InputError, match="nested too deep"):
        jsonl.parse(line)


@pytest.mark.parametrize("name", sorted(TYPES))
def test_type_and_schema_have_the_same_keys(name: str) -> None:
    typed, path = TYPES[name]
    schema = schemas.load(name)
    for key in path:
        schema = schema[key]

    assert list(typed.__annotations__) == list(schema["properties"])
    assert set(schema["required"]) <= set(schema["properties"])


@pytest.mark.parametrize("name", ["answer", "calls", "tool_call"])
def test_a_choice_of_words_is_the_same_in_type_and_schema(name: str) -> None:
    typed, path = TYPES[name]
    schema = schemas.load(name)
    for key in path:
        schema = schema[key]

    for key, hint in get_type_hints(typed).items():
        if key == "status":
            continue  # codes of failures: a table of their own, which later versions may add to
        literals = [part for part in (hint, *get_args(hint)) if get_origin(part) is Literal]
        spelled = schema["properties"][key]
        allowed = spelled.get("enum", [spelled["const"]] if "const" in spelled else [])
        if literals:
            assert [word for literal in literals for word in get_args(literal)] == [w for w in allowed if w is not None]


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_a_valid_schema_of_draft_2020_12(name: str) -> None:
    schema = schemas.load(name)

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(f"/{name}.schema.json")


@pytest.mark.parametrize("name", schemas.names())
@pytest.mark.parametrize("data", [{}, [], [{}], "x", {"function": {"name": "f", "arguments": "{}"}}, {"panel": ["a"]}])
def test_every_schema_can_be_checked_by_its_name(name: str, data: Any) -> None:
    assert schemas.is_valid(name, data) == reference_validator(name).is_valid(data)


@given(RECORDS)
def test_both_validators_accept_a_good_record(whole: Any) -> None:
    assert schemas.is_valid("record", whole)
    assert REFERENCE.is_valid(whole)


@settings(max_examples=200)
@given(damaged())
def test_both_validators_agree_on_a_damaged_record(whole: Any) -> None:
    accepted = schemas.is_valid("record", whole)

    assert accepted == REFERENCE.is_valid(whole)
    if not accepted:
        path, reason = schemas.explain("record", whole)
        assert path.startswith("$")
        assert reason != "not accepted"
        assert len(reason) < 450


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"panel": []}, "$.panel: [] should be non-empty"),
        ({"id": ""}, "$.id: '' should be non-empty"),
        ({"panel": [{"member": "a", "sample": 0, "layer": 1}]}, "$.panel[0]: has neither 'content' nor 'error'"),
        ({"panel": [{"sample": 0, "layer": 1, "content": ""}]}, "$.panel[0]: 'member' is a required property"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "$.messages[0].role: 'boss' is not one of "),
        ({"calls": [{"stage": "panel"}]}, "$.calls[0]: 'model' is a required property"),
        ({"messages": "x" * 5000}, "$.messages: 'xxxxxxxxxxxxxxxxxxx"),
    ],
)
def test_a_bad_record_is_explained_by_path_and_reason(change: Any, message: str) -> None:
    data = {"id": "1", "messages": [{"role": "user", "content": "x"}], **change}

    with pytest.raises(InputError) as refused:
        schemas.check_record(data)

    assert refused.value.message.startswith(message)
    assert len(refused.value.message) < 300
