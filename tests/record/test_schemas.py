"""Schemas: what is found wrong with a record, where, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from strategies import RECORDS, damaged

from fusiontools.errors import InputError
from fusiontools.record import schemas


def reference_validator(name: str) -> Draft202012Validator:
    registry: Any = Registry().with_resources(
        [(schemas.load(n)["$id"], Resource.from_contents(schemas.load(n))) for n in schemas.names()]
    )
    return Draft202012Validator(schemas.load(name), registry=registry)


REFERENCE = reference_validator("record")


@pytest.mark.parametrize("name", schemas.names())
def test_every_schema_is_a_valid_schema_of_draft_2020_12(name: str) -> None:
    schema = schemas.load(name)

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(f"/{name}.schema.json")


@pytest.mark.parametrize("name", schemas.names())
@pytest.mark.parametrize("data", [{}, [], [{}], "x", {"function": {"name": "f", "arguments": "{}"}}, {"panel": ["a"]}])
def test_every_schema_can_be_checked_by_its_name(name: str, data: Any) -> None:
    assert schemas.check_of(name)(data) == reference_validator(name).is_valid(data)


@given(RECORDS)
def test_both_validators_accept_a_good_record(whole: Any) -> None:
    assert schemas.check_of("record")(whole)
    assert REFERENCE.is_valid(whole)


@settings(max_examples=100)
@given(damaged())
def test_both_validators_agree_on_a_damaged_record(whole: Any) -> None:
    accepted = schemas.check_of("record")(whole)

    assert accepted == REFERENCE.is_valid(whole)
    if not accepted:
        path, reason = schemas.explain("record", whole)
        assert path.startswith("$")
        assert reason != "not accepted"
        assert len(reason) < 450


def test_the_first_three_faults_are_named_in_the_order_in_which_they_stand() -> None:
    panel = [{"member": "a"}, {"member": "b", "sample": "x", "layer": 1, "content": ""}, {}, {}]

    with pytest.raises(InputError) as refused:
        schemas.check_record({"panel": panel, "id": "1", "messages": [{"role": "user", "content": "x"}]})

    assert refused.value.path == "$.panel[0]"
    assert refused.value.message.split("; ") == [
        "$.panel[0]: 'sample' is a required property",
        "$.panel[0]: 'layer' is a required property",
        "$.panel[0]: has neither 'content' nor 'error'",
    ]


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
