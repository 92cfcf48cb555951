"""What `/openapi.json` promises of a response, and whether a real one keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import jsonschema_rs

METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Document:
    """The document as a client gets it."""

    whole: dict[str, Any]

    @cached_property
    def operations(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every operation by its method and path."""
        paths = self.whole["paths"].items()
        return {(verb.upper(), path): item[verb] for path, item in paths for verb in METHODS if verb in item}

    @cached_property
    def _validators(self) -> dict[str, Any]:
        return {}

    def resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return what a reference points at; anything else is returned as it is."""
        while "$ref" in value and value["$ref"].startswith("#/components/"):
            value = self.at(value["$ref"])
        return value

    def at(self, target: str) -> Any:
        """Return what stands at this pointer: `#/components/schemas/chat`."""
        assert target.startswith("#/"), f"{target} is not in the document"
        found: Any = self.whole
        for key in target[2:].split("/"):
            found = found[key.replace("~1", "/").replace("~0", "~")]
        return found

    def faults(self, schema: dict[str, Any], data: Any) -> list[str]:
        """Return what of the data does not fit a schema of the document."""
        key = json.dumps(schema)
        if key not in self._validators:
            standing = {**schema, "components": self.whole["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(standing)
        return [f"{error.instance_path}: {error.message}"[:500] for error in self._validators[key].iter_errors(data)]

    def check(self, path: str, response: httpx.Response) -> None:
        """Fail unless status, headers and body are as the operation at this path says."""
        said = self.operations[response.request.method, path]["responses"]
        status = str(response.status_code)
        found = said.get(status) or said.get(f"{status[0]}XX")
        assert found is not None, f"{path}: {status} is not documented: {response.text[:500]}"
        told = self.resolved(found)
        self._check_headers(told["headers"], response)
        kind = response.headers["content-type"].partition(";")[0]
        assert kind in told["content"], f"{path}: {status} as {kind} is not documented"
        schema = told["content"][kind]["schema"]
        for data in bodies(kind, response.text):
            self._check_body(schema, data)

    def _check_headers(self, told: dict[str, Any], response: httpx.Response) -> None:
        for name, header in told.items():
            header = self.resolved(header)
            value: Any = response.headers.get(name)
            assert value is not None or not header.get("required"), f"no {name}"
            if value is not None:
                read = json.loads(value) if header["schema"].get("type") in ("number", "integer") else value
                assert self.faults(header["schema"], read) == []
        own = {name for name in response.headers if name.startswith("x-")} - {
            "x-accel-buffering",
            "x-content-type-options",
        }
        assert own <= told.keys()

    def _check_body(self, schema: dict[str, Any], data: Any) -> None:
        assert self.faults(schema, data) == [], data
        event = self.resolved(schema).get("properties", {}).get("data", {})
        for form in event.get("anyOf", [event]):
            if "contentSchema" in form and data["data"] != "[DONE]":
                assert self.faults(form["contentSchema"], json.loads(data["data"])) == [], data


def bodies(kind: str, text: str) -> Iterator[Any]:
    """Yield what a schema is about: the body, or each event of a stream."""
    if kind == "application/json":
        yield json.loads(text)
    elif kind == "text/event-stream":
        for block in text.split("\n\n"):
            lines = [line for line in block.split("\n") if line and not line.startswith(":")]
            if lines:
                yield dict(line.split(": ", 1) for line in lines)
    else:
        yield text
