"""What the README says of the server is what the server does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from serving import Server
from test_docs import code, literals, rows

import fusiontools
from fusiontools.record import params, schemas
from fusiontools.server.metrics import Metrics

SERVE = Path(fusiontools.__file__).parent / "serve"


def tables(title: str) -> Iterator[list[list[str]]]:
    """Yield the cells of every table in a section of the README, without their headings."""
    from test_docs import section

    for table in re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE):
        lines = table.splitlines()[2:]
        yield [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_policy_table_is_the_programs() -> None:
    parameters, _ = tables("What becomes of a request")

    assert {code(row[0])[0]: row[1] for row in parameters} == params.POLICY


def test_the_overrides_are_the_schemas() -> None:
    _, overrides = tables("What becomes of a request")

    assert [code(row[0])[0] for row in overrides] == list(schemas.load("fusion")["properties"])


def test_the_codes_are_those_that_the_program_refuses_with() -> None:
    listed = {(row[0], code(row[1])[0]) for row in rows("What comes back")}

    assert listed == set(refusals())


def refusals() -> Iterator[tuple[str, str]]:
    """Yield every status and code that stand in the source; the record's own codes are passed on."""
    for path in SERVE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Refused"), args=[ast.Constant(status), ast.Constant(said), *_]):
                    yield str(status), said
                case ast.Call(
                    func=ast.Name(id="Refused"), args=[ast.Constant(status), ast.IfExp(body=one, orelse=other), *_]
                ):
                    yield from ((str(status), said) for said in (*literals(one), *literals(other)))
                case ast.Call(func=ast.Name(id="Refused"), args=[_, ast.Constant(value="not_found"), *_]):
                    yield "404", "not_found"
                case ast.Call(func=ast.Name(id="_bad" | "refuse"), args=[_, _, ast.Constant(value=said)]):
                    yield "400", said
                case ast.FunctionDef(name="_bad" | "refuse", args=made):
                    yield from (("400", said) for said in literals(made))


def test_the_endpoints_are_the_routes(server: Server) -> None:
    endpoints = list(tables("Serving"))[1]
    listed = [code(row[0])[0].replace("{name:path}", "{name}") for row in endpoints]

    served = server.get("/openapi.json").json()["paths"]

    told = {f"{method.upper()} {path}" for path, methods in served.items() for method in methods}
    assert set(listed) == told


def test_the_metrics_are_those_that_are_counted() -> None:
    metrics = next(table for table in tables("Running it"))
    listed = {code(row[0])[0]: code(row[1]) for row in metrics}

    counted = {}
    for collector in Metrics().registry._names_to_collectors.values():
        name = collector._name + ("_total" if collector._type == "counter" else "")
        counted[name] = list(collector._labelnames)

    assert listed == counted
