"""Traces of real tools arrive at a real collector, delay nobody, and cost nothing where nobody wants them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, start_collector
from rawhttp import eventually
from workdir import Run, Serve, Upstream

from fusiontools.llm.traces import wants_traces

PANEL = "fuse-panel -c recipe.yaml"
RECIPE = """
panel: [fake/a, fake/b]
judge: fake/judge
synth: fake/synth
"""
#: How long an exporter alone would try: far beyond what a busy machine makes of our own few seconds.
PATIENCE_S = 120
PATIENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": str(PATIENCE_S)}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector_process() -> Iterator[Collector]:
    with start_collector() as collector:
        yield collector


@pytest.fixture
def collector(collector_process: Collector) -> Collector:
    collector_process.reset()
    return collector_process


@pytest.fixture
def traced(env: dict[str, str], collector: Collector, tmp_path: Path) -> dict[str, str]:
    """The environment of a tool whose traces go to the collector; beside a recipe."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return {**env, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}


def above(spans: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return of each span its tool, its name, and the name of the one above it."""
    names = {span["id"]: span["name"] for span in spans}
    return [(span["resource"]["service.name"], span["name"], names.get(span["parent"], "")) for span in spans]


@pytest.mark.slow
def test_a_pipelines_tools_tell_one_trace_of_each_record(
    run: Run, traced: dict[str, str], collector: Collector, upstream: Upstream
) -> None:
    done = run(f"{PANEL} --lines | fuse-judge -q | fuse-synth -q", "Why?\nWho?\n", env=traced)

    assert (done.status, done.err) == (0, "")
    spans = collector.spans()
    traces = {record["calls"][0]["trace"].split("-")[1] for record in done.records}
    assert {span["trace"] for span in spans} == traces
    assert len(traces) == 2
    first = [span for span in spans if span["trace"] == min(traces)]
    assert sorted(above(first)) == sorted(
        [
            ("fuse-panel", "invoke_workflow fuse-panel", ""),
            ("fuse-panel", "panel", "invoke_workflow fuse-panel"),
            ("fuse-panel", "chat fake/a", "panel"),
            ("fuse-panel", "chat fake/b", "panel"),
            ("fuse-judge", "invoke_workflow fuse-judge", "invoke_workflow fuse-panel"),
            ("fuse-judge", "judge", "invoke_workflow fuse-judge"),
            ("fuse-judge", "chat fake/judge", "judge"),
            ("fuse-synth", "invoke_workflow fuse-synth", "invoke_workflow fuse-panel"),
            ("fuse-synth", "synth", "invoke_workflow fuse-synth"),
            ("fuse-synth", "chat fake/synth", "synth"),
        ]
    )
    calls = {f"00-{span['trace']}-{span['id']}" for span in spans if span["name"].startswith("chat")}
    assert {request["headers"]["traceparent"][:52] for request in upstream.requests()} == calls
    assert "test-key" not in json.dumps(spans)


@pytest.mark.slow
def test_a_tool_that_is_a_part_of_a_trace_goes_on_with_it(
    run: Run, traced: dict[str, str], collector: Collector
) -> None:
    env = {**traced, "TRACEPARENT": f"00-{TRACE}-{PARENT}-01", "OTEL_SERVICE_NAME": "nightly"}

    assert run(["fuse-ask", "-c", "recipe.yaml", "Why?"], env=env).status == 0

    (root,) = [span for span in collector.spans() if span["name"].startswith("invoke_workflow")]
    assert (root["trace"], root["parent"], root["resource"]["service.name"]) == (TRACE, PARENT, "nightly")
    assert {span["trace"] for span in collector.spans()} == {TRACE}


@pytest.mark.slow
def test_what_is_under_way_at_an_interrupt_arrives(
    traced: dict[str, str], collector: Collector, tmp_path: Path
) -> None:
    command = [str(Path(sys.executable).parent / "fuse-panel"), "-m", "fake/a+hang", "--text"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=traced, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(b"Why?")
        process.stdin.close()
        eventually(lambda: bool(Upstream(traced["FUSION_BASE_URL"]).stats()["in_flight"]), "the call")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130

    (call,) = [span for span in collector.spans() if span["name"].startswith("chat")]
    assert call["attributes"]["error.type"] == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("gone", [False, True])
def test_a_program_that_uses_the_library_waits_a_little_for_its_last_spans(
    traced: dict[str, str], collector: Collector, tmp_path: Path, gone: bool
) -> None:
    env = {**traced, **PATIENT, **({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} if gone else {})}
    began = time.monotonic()
    code = "import fusiontools; print(fusiontools.fuse_sync('Why?', 'recipe.yaml')['answer']['by'])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, "synth\n")
    assert [span["name"] for span in collector.spans()][:1] == ([] if gone else ["invoke_workflow recipe"])
    assert time.monotonic() - began < PATIENCE_S / 2


@pytest.mark.slow
@pytest.mark.parametrize("status", ["", "400", "503"])
def test_a_collector_that_is_gone_or_refuses_is_said_once_and_changes_nothing(
    run: Run, traced: dict[str, str], status: str
) -> None:
    def fuse(url: str) -> Any:
        return run(f"{PANEL} --lines -q", "Why?\nWho?\n", env={**traced, **PATIENT, "OTEL_EXPORTER_OTLP_ENDPOINT": url})

    began = time.monotonic()
    if status:
        with start_collector("--status", status) as broken:
            done = fuse(broken.url)
    else:
        done = fuse("http://127.0.0.1:9")

    assert (done.status, len(done.records)) == (0, 2)
    assert done.err.startswith("fuse-panel: warning: traces: " + ("" if status else "no collector at 127.0.0.1:9: "))
    assert done.err.count("\n") == 1
    assert time.monotonic() - began < PATIENCE_S / 2


def test_without_a_word_in_the_environment_nothing_of_it_is_imported(env: dict[str, str], tmp_path: Path) -> None:
    code = "import sys; from fusiontools.cli.panel import main\ntry: main()\nfinally: pass"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, "-m", "fake/a", "--text"],
        input=b"Why?", capture_output=True, env=env, cwd=tmp_path, check=True,
    )  # fmt: skip

    assert json.loads(done.stdout)["panel"]
    assert b"fusiontools.llm.traces" in done.stderr
    assert b"fusiontools.llm.spans" not in done.stderr
    assert b"opentelemetry" not in done.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"PYTHONPATH": "."}, "traces are asked for (OTEL_…) and cannot be told: pip install 'fusiontools[otel]'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "no traces are told: OTEL_EXPORTER_OTLP_PROTOCOL=grpc: http/protobuf "
        "alone is spoken (port 4318)"),
    ],
)  # fmt: skip
def test_traces_that_cannot_be_told_are_said_and_the_run_goes_on(
    run: Run, traced: dict[str, str], tmp_path: Path, more: Mapping[str, str], words: str
) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError")

    done = run([*PANEL.split(), "-q"], '{"prompt": "Why?"}', env={**traced, **more})

    assert (done.status, done.err) == (0, f"fuse-panel: {words}\n")


def test_a_key_for_the_collector_that_cannot_be_read_is_not_repeated(run: Run, traced: dict[str, str]) -> None:
    env = {**traced, "OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer KEYOFTHECOLLECTOR"}

    done = run([*PANEL.split(), "-q"], '{"prompt": "Why?"}', env=env)

    assert done.status == 0
    assert done.err.count("\n") == 1
    assert "Header format invalid" in done.err
    assert "KEYOFTHECOLLECTOR" not in done.err


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SERVICE_NAME": "x", "TRACEPARENT": f"00-{TRACE}-{PARENT}-01"}, False),
    ],
)
def test_the_environment_decides_whether_traces_are_told(env: Mapping[str, str], wanted: bool) -> None:
    assert wants_traces(env) is wanted


@pytest.mark.slow
def test_a_servers_request_goes_on_with_its_clients_trace_and_is_over_all_that_it_did(
    serve: Serve, traced: dict[str, str], collector: Collector
) -> None:
    server = serve("--allow-model", "fake/*", env=traced)
    named = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert server.chat(headers=named).status_code == 200
    assert server.post(
        "/v1/chat/completions", {"model": "fake/a", "messages": [{"role": "user", "content": "x"}]}
    ).is_success
    assert server.get("/health").is_success
    server.process.terminate()
    server.process.wait(60)

    spans = collector.spans()
    post = "POST /v1/chat/completions"
    assert [row for row in above(spans) if row[2] == ""] == [("fuse-serve", post, "")] * 2
    first, second = [span for span in spans if span["name"] == post]
    assert (first["trace"], first["parent"]) == (TRACE, PARENT)
    assert first["attributes"]["http.response.status_code"] == 200
    assert first["attributes"]["fusion.outcome"] == "ok"
    of_first = [name for _, name, _ in above([span for span in spans if span["trace"] == TRACE])]
    assert sorted(of_first[1:]) == sorted(
        ["invoke_workflow recipe", "panel", "chat fake/a", "chat fake/b", "chat fake/c", "judge", "chat fake/judge",
         "synth", "chat fake/synth"]
    )  # fmt: skip
    (passed,) = [span for span in spans if span["parent"] == second["id"]]
    assert (passed["name"], passed["attributes"]["gen_ai.usage.input_tokens"] > 0) == ("chat fake/a", True)
