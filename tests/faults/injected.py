"""Let endpoints answer with everything but what they should: in a batch of the shell, and to clients of a server.

    python tests/faults/injected.py [RECORDS]

A panel has a member for every kind of fault and one that behaves; every record asks them all, 10 records where nothing
is said. Each must come out, in its place, with a response or a failure that has one of our codes from every member.
Then a server's clients ask for each kind: straight, as a stream, and as the synthesizer of a fusion.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from bounds import Bound, Scene, run_part, scene
from odd_replies import ODD
from serving import Server, start_server

from fusiontools.errors import FAILURE_CODES

STATUSES = (
    *(201, 202, 203, 300, 304, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 418, 421, 422),
    *(
        423,
        424,
        425,
        426,
        428,
        429,
        431,
        451,
        499,
        500,
        501,
        502,
        503,
        504,
        505,
        507,
        508,
        511,
        520,
        524,
        529,
        598,
        599,
    ),
)
OTHERS = (
    *("html", "html502", "garbage", "err200", "empty", "nochoices", "nullcontent", "refuse", "length", "filter"),
    *("closeearly", "closehalf", "midfail", "unasked+nodone", "unasked+midfail", "unasked+closehalf", "comments"),
    *("unasked", "nostream", "hang", "drip=0.5", "unasked+drip=0.5", "slow=1", "big=5000000", "finish=odd", "nousage"),
)
KINDS = (*(f"status={status}" for status in STATUSES), *OTHERS, *(f"odd={kind}" for kind in ODD))
GOOD = "fake/good"
MODELS = tuple(f"fake/a+{kind}" for kind in KINDS)
#: Long enough for what behaves on a busy machine: 100 s for a record of 271 calls; at a server, whose clients wait for
#: 60 s, less than those do, for an answer that drips ends with the deadline.
RECIPE = f"panel: {json.dumps([GOOD, *MODELS])}\nlimits: {{retries: 0, timeout_s: 10, deadline_s: 100}}\n"
SERVED = (
    f"panel: [{GOOD}, fake/other]\nsynth: fake/synth\nchain: panel | synth\n"
    "limits: {retries: 0, timeout_s: 10, deadline_s: 40}\n"
)
CLIENTS = 16


def unnamed(response: dict[str, Any]) -> bool:
    """Return whether a response is neither one nor a failure with a code of ours."""
    if "error" not in response:
        return not (response["content"] or response["tool_calls"])
    code = response["error"]["code"]
    return code not in FAILURE_CODES or "call" not in FAILURE_CODES[code].where


def tracebacks(said: str) -> int:
    return said.count("Traceback") + said.count("a bug in")


def faults_of(here: Scene) -> tuple[int, int]:
    """Return how many faults were sent since the last reset, and of how many kinds."""
    counts = [count for model, count in here.upstream.stats()["per_model"].items() if model in MODELS]
    return sum(counts), len(counts)


def in_shell(here: Scene, count: int) -> Iterator[Bound]:
    """Run the batch."""
    (here.folder / "faults.yaml").write_text(RECIPE)
    source, output = here.folder / "asked.jsonl", here.folder / "output.jsonl"
    source.write_text("".join(json.dumps({"id": str(i), "prompt": f"Question {i}?"}) + "\n" for i in range(count)))
    with here.start(["fuse-panel", "-q", "-c", "faults.yaml", "-j", "2"], source, output) as process:
        status = process.wait()
    found = [json.loads(line) for line in output.read_text().splitlines()]
    sent, kinds = faults_of(here)
    in_place = sum(record["id"] == str(i) for i, record in enumerate(found))
    responses = [response for record in found for response in record.get("panel", [])]
    for record in found:
        if "error" in record:
            print(f"injected: {record['id']}: {str(record['error'])[:300]}", file=sys.stderr)
    yield Bound("injected", "faults sent to a batch", sent)
    yield Bound("injected", "kinds of them", kinds)
    yield Bound("injected", "records lost or out of place", count - in_place, 0)
    yield Bound("injected", "records that failed, where one member behaves", sum("error" in r for r in found), 0)
    yield Bound("injected", "responses missing", count * (1 + len(MODELS)) - len(responses), 0)
    yield Bound("injected", "failures without a code of ours", sum(map(unnamed, responses)), 0)
    yield Bound("injected", "exit status of the batch", status, 0)
    yield Bound("injected", "tracebacks", tracebacks(output.with_suffix(".said").read_text()), 0)


def faults_of_reply(reply: httpx.Response, fused: bool) -> list[str]:
    """Return what is wrong with what a client got; what goes straight through ends as its endpoint ends it."""
    if reply.status_code == 500 and '"internal_error"' in reply.text:
        return ["internal_error"]
    if reply.status_code >= 400:
        error = reply.json()["error"]
        return [] if error.get("code") or error.get("type") else ["no code"]
    return [] if reply.text.endswith("data: [DONE]\n\n") or not fused else ["stream without its end"]


def ask(server: Server, model: str, how: str) -> list[str]:
    """Ask for a kind in one of the three ways; return what is wrong with what came."""
    try:
        if how == "synth":
            reply = server.chat(stream=True, fusion={"synth": model})
        else:
            reply = server.chat(model=model, **({"stream": True} if how == "stream" else {}))
        wrong = faults_of_reply(reply, how == "synth")
    except (httpx.HTTPError, ValueError) as error:
        wrong = [repr(error)]
    return [f"{model}, {how}: {fault}" for fault in wrong]


def in_server(here: Scene) -> Iterator[Bound]:
    """Ask a server for every kind, in every way."""
    here.upstream.reset()
    with start_server(here.folder, here.env, "--allow-model", "fake/*", recipe=SERVED) as server:
        asked = [(model, how) for model in MODELS for how in ("plain", "stream", "synth")]
        with ThreadPoolExecutor(CLIENTS) as clients:
            wrong = [fault for faults in clients.map(lambda one: ask(server, *one), asked) for fault in faults]
        healthy = server.get("/health").status_code == 200
        said = server.said()
    for fault in wrong:
        print(f"injected: {fault}", file=sys.stderr)
    yield Bound("injected", "faults sent to a server", faults_of(here)[0])
    yield Bound("injected", "requests answered with a bug, without a code or without an end", len(wrong), 0)
    yield Bound("injected", "tracebacks in the server's log", tracebacks(said), 0)
    yield Bound("injected", "servers that no longer answer", not healthy, 0)


def measure(count: int) -> Iterator[Bound]:
    """Inject every kind so many times into a batch, and three times into a server."""
    with scene() as here:
        yield from in_shell(here, count)
        yield from in_server(here)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    yield Bound("injected", "peak memory of the largest process, MiB", round(peak_mib), 1024)


if __name__ == "__main__":
    sys.exit(run_part(measure, 10))
