"""Measure fusiontools and print one table; see README.md. Exits 0 whatever the figures are.

python tests/bench/run.py [--json FILE] [startup] [replay] [code] [report] [calls] [tools] [memory] [soak] [serve]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from serve import serve
from stand import BIN, Run, Stand, floor, lines_of, median, python, questions, tool, upstream
from table import Row, table

PANEL, JUDGE, SYNTH = "fuse-panel", "fuse-judge", "fuse-synth"
MEMBERS = 3
#: More than the ids that a tool remembers to warn of duplicates, so that a file can be read again and again unwarned.
DISTINCT = 17_000


@contextlib.contextmanager
def stand(latency_s: float = 0.0) -> Iterator[Stand]:
    with tempfile.TemporaryDirectory(prefix="fuse-bench-") as folder, upstream(latency_s) as url:
        yield Stand(Path(folder), url)


def startup() -> Iterator[Row]:
    """`--help`, and the pipeline on one question, interleaved with their references."""
    nothing, click, clients = "pass", "import click", "import click, orjson, httpx"
    commands = {name: [python(name)] for name in (nothing, click, clients)}
    commands["help"] = [tool(PANEL, "--help")]
    commands["completion"] = [[str(BIN / "fuse-ask"), "--completion", "bash"]]
    commands["pipeline"] = [tool(PANEL), tool(JUDGE), tool(SYNTH)]
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    with stand() as here:
        question = here.folder / "question"
        question.write_text("Why is the sky blue?\n")
        for turn in range(16):
            for name, command in commands.items():
                run = here.run(*command, source=question)
                if turn:
                    runs[name].append(run)
    took = {name: median(all_runs) for name, all_runs in runs.items()}
    wall = {name: run.wall_s * 1000 for name, run in took.items()}
    for name in (nothing, click, clients):
        yield Row(f'python -c "{name}"', wall[name], "ms", wall[nothing], nothing)
    yield Row("fuse-panel --help", wall["help"], "ms", wall[nothing], nothing)
    yield Row("fuse-panel --help", wall["help"], "ms", wall[click], click, "≤ 1.3", wall["help"] <= 1.3 * wall[click])
    set_up = wall["completion"]
    yield Row("completion of all tools set up", set_up, "ms", wall[click], click, "≤ 60 ms", set_up <= 60)
    whole = wall["pipeline"]
    yield Row("pipeline, one question", whole, "ms", wall[nothing], nothing)
    yield Row("pipeline, one question", whole, "ms", wall[clients], clients, "≤ 2", whole <= 2 * wall[clients])
    yield Row("pipeline, CPU of the three", took["pipeline"].cpu_s * 1000, "ms", took[clients].cpu_s * 1000, clients)
    for name in ("help", "pipeline"):
        yield Row(f"{name}, peak memory", took[name].peak_mib, "MiB", took[clients].peak_mib, clients)


def replay() -> Iterator[Row]:
    """Records a second of each stage from the journal, start-up left out."""
    few, many = 1_000, 6_000
    with stand() as here:
        inputs = filled(here, many)
        gains: dict[str, list[Run]] = {name: [] for name in inputs}
        floors: dict[str, list[float]] = {name: [] for name in inputs}
        for _ in range(3):
            for name, path in inputs.items():
                short, long = (here.run(tool(name, "--replay"), source=lines_of(path, n)) for n in (few, many))
                gains[name].append(long - short)
                floors[name] += floor(here, "records", str(path), str(few))
        for name, path in inputs.items():
            took = median(gains[name])
            rate = (many - few) / took.wall_s
            shown = f"{name} --replay, {path.stat().st_size / many / 1000:.1f} kB in"
            least = statistics.median(floors[name])
            yield Row(shown, rate, "/s", least, "read, check, write", "≥ 10000", rate >= 10_000)
            yield Row(
                f"{name} --replay, CPU per record", took.cpu_s * 1e6 / (many - few), "µs", 1e6 / least, "the same"
            )


def code() -> Iterator[Row]:
    """Records a second that are judged by code: five long responses each, start-up left out."""
    few, many = 200, 1_200
    with stand() as here:
        panels = here.folder / "panels.jsonl"
        recipe = here.folder / "five.yaml"
        recipe.write_text(f"panel: [{', '.join(f'fake/{name}' for name in 'abcde')}]\n")
        here.run(tool(PANEL, "-j", "64", "-c", str(recipe)), source=questions(many, many, 100), output=panels)
        gains: list[Run] = []
        for _ in range(3):
            command = tool(JUDGE, "--method", "lexical")
            short, long = (here.run(command, source=lines_of(panels, n)) for n in (few, many))
            gains.append(long - short)
        least = floor(here, "records", str(panels), str(few))[0]
        took = median(gains)
        rate = (many - few) / took.wall_s
        shown = f"fuse-judge --method lexical, {panels.stat().st_size / many / 1000:.1f} kB in"
        yield Row(shown, rate, "/s", least, "read, check, write", "≥ 5000", rate >= 5_000)
        yield Row(f"{shown}, CPU per record", took.cpu_s * 1e6 / (many - few), "µs", 1e6 / least, "the same")


def report() -> Iterator[Row]:
    """Seconds for a report of 10,000 graded records: three members, a baseline asked five times, three categories."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    from graded import World, lines, run_of

    count = 10_000
    with stand() as here:
        graded = here.folder / "graded.jsonl"
        graded.write_text(lines(run_of(World(mended=0.2), count)))
        took = median([here.run([str(BIN / "fuse-report"), str(graded)]) for _ in range(3)])
        least = floor(here, "records", str(graded), "1000")[0]
    yield Row(f"fuse-report, {count:,} records", took.wall_s, "s", count / least, "read, check, write", "≤ 1.5 s",
              took.wall_s <= 1.5)  # fmt: skip


def calls() -> Iterator[Row]:
    """Calls a second and CPU per call, at several numbers in flight, beside bare aiohttp in the same run."""
    sizes = {(0.0, 1): 1000, (0.0, 64): 2500, (0.0, 256): 2500, (0.05, 1): 25, (0.05, 64): 1000, (0.05, 256): 2500}
    for latency_s in (0.0, 0.05):
        with stand(latency_s) as here:
            for (_, window), count in ((key, n) for key, n in sizes.items() if key[0] == latency_s):
                rate, cpu_ms, *least = buying(here, window, count, ["--max-concurrency", str(window)])
                where = f"{latency_s * 1000:.0f} ms upstream, {window} in flight"
                yield Row(f"calls, {where}", rate, "/s", least[0], "aiohttp")
                met = cpu_ms <= 1.2 * least[1]
                yield Row(f"CPU per call, {where}", cpu_ms, "ms", least[1], "aiohttp", "≤ 1.2", met)
            if latency_s:
                rate, *_ = buying(here, 64, 2500, [])
                allowed = MEMBERS * 64 / latency_s
                shown = f"calls, {latency_s * 1000:.0f} ms upstream, -j 64"
                yield Row(shown, rate, "/s", allowed, "what the latency allows", "≥ 0.8", rate >= 0.8 * allowed)


def memory() -> Iterator[Row]:
    """Peak memory while each stage replays more and more records."""
    with stand() as here:
        for name, path in filled(here, DISTINCT).items():
            peaks = [
                here.run(tool(name, "--replay"), source=lines_of(path, count)).peak_mib
                for count in (1_000, 10_000, 100_000)
            ]
            yield Row(f"{name}, peak over 1,000 records", peaks[0], "MiB")
            yield Row(f"{name}, peak over 10,000", peaks[1], "MiB", peaks[0], "1,000 records")
            met = peaks[2] <= 1.2 * peaks[0]
            yield Row(f"{name}, peak over 100,000", peaks[2], "MiB", peaks[0], "1,000 records", "≤ 1.2", met)
            if name == JUDGE:
                few, many = (
                    here.run(tool(JUDGE, "--method", "lexical"), source=with_own_recipes(path, count)).peak_mib
                    for count in (1_000, 100_000)
                )
                met = many <= 1.2 * few
                yield Row("100,000 recipes, judged by code", many, "MiB", few, "1,000 recipes", "≤ 1.2", met)


def with_own_recipes(path: Path, count: int) -> Iterator[bytes]:
    """Yield so many records of a file, of which no two bring along the same recipe."""
    for number, line in enumerate(lines_of(path, count), 1):
        record = json.loads(line)
        record["recipe"]["judge"]["max_tokens"] = number
        yield json.dumps(record).encode() + b"\n"


def soak() -> Iterator[Row]:
    """Sockets, threads and memory of `fuse-panel` while it buys the answers to 10,000 questions."""
    count, jobs = 10_000, 64
    seen: list[Vitals] = []
    with stand(0.05) as here:
        here.run(
            tool(PANEL, "-j", str(jobs)),
            source=questions(count, count, 100),
            watch=lambda pid: seen.append(vitals(pid)),
        )
    busy = [v for v in seen if v.sockets]
    early, late = busy[len(busy) // 5 : len(busy) * 2 // 5], busy[-len(busy) // 5 :]
    sockets, window = max(v.sockets for v in busy), MEMBERS * jobs
    yield Row(
        "most sockets over 10,000 records", sockets, "", window, "calls in flight", "≤ 1.1", sockets <= 1.1 * window
    )
    threads, at_first = max(v.threads for v in late), max(v.threads for v in early)
    yield Row("threads in the last fifth", threads, "", at_first, "in the second fifth", "≤ 1", threads <= at_first)
    before, after = (statistics.median(v.memory_mib for v in part) for part in (early, late))
    yield Row("memory in the last fifth", after, "MiB", before, "in the second fifth", "≤ 1.2", after <= 1.2 * before)


def tools() -> Iterator[Row]:
    """CPU that a response costs more where its member may look things up: nothing, or one search and one fetch."""
    few, many = 50, 450
    flags = ["--tools", "web_search,web_fetch"]
    with stand() as plain, small_web() as (url, host):
        here = replace(plain, more={"SEARXNG_URL": f"{url}/searx/"})
        recipe = here.folder / "looks.yaml"
        recipe.write_text(f"search: searxng\nprivate_hosts: ['{host}']\npanel: [fake/a]\n")
        searches = here.folder / "searches.yaml"
        searches.write_text(recipe.read_text().replace("fake/a", "fake/a+research"))
        ways = {
            "no tools": tool(PANEL, "-c", str(recipe)),
            "tools, none used": tool(PANEL, "-c", str(recipe), *flags),
            "one search, one fetch": tool(PANEL, "-c", str(searches), *flags),
        }
        took: dict[str, list[Run]] = {name: [] for name in ways}
        for _ in range(3):
            for name, command in ways.items():
                short, long = (here.run(command, source=merging(n)) for n in (few, many))
                took[name].append(long - short)
    cpu_ms = {name: median(runs).cpu_s * 1000 / (many - few) for name, runs in took.items()}
    base = cpu_ms["no tools"]
    for name, ms in cpu_ms.items():
        yield Row(f"CPU per response, {name}", ms, "ms", base, "no tools")


def merging(count: int) -> Iterator[bytes]:
    """Yield different questions about the same page of the small web."""
    for number in range(count):
        yield (
            json.dumps({"id": f"q{number}", "messages": [{"role": "user", "content": f"Merging {number}?"}]}).encode()
            + b"\n"
        )


@contextlib.contextmanager
def small_web() -> Iterator[tuple[str, str]]:
    """Run the small web of the tests; yields its URL, and host and port of it."""
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "web.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = json.loads(process.stdout.readline())["web"]
            yield url, url.removeprefix("http://")
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a process holds at one moment."""

    sockets: int
    threads: int
    memory_mib: float


def vitals(pid: int) -> Vitals:
    """Look at a process; all zero where it has just ended."""
    process = Path(f"/proc/{pid}")
    status: dict[str, str] = {}
    sockets = 0
    # Descriptors come and go while we look.
    with contextlib.suppress(OSError):
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                sockets += str(descriptor.readlink()).startswith("socket:")
    return Vitals(sockets, int(status.get("Threads", 0)), int(status.get("VmRSS", "0 kB").split()[0]) / 1024)


def filled(here: Stand, count: int) -> dict[str, Path]:
    """Run the pipeline once over `count` records, so that the journal holds every call; returns what each tool read.

    The journal's key holds the question and not the id, so that 1,000 questions do for `fuse-panel`; prompts to judge
    and synthesizer carry a nonce that the id decides, so that these two need a call for each record.
    """
    asked, answered, judged = (here.folder / f"{name}.jsonl" for name in ("asked", "answered", "judged"))
    with asked.open("wb") as file:
        file.writelines(questions(count, 1_000, 1_900))
    paid_for = here.folder / "short.jsonl"
    with paid_for.open("wb") as file:
        file.writelines(questions(count, 1_000, 20))
    here.run(tool(PANEL, "-j", "64"), source=questions(1_000, 1_000, 1_900))
    here.run(tool(PANEL, "-j", "64", "--replay"), source=paid_for, output=answered)
    here.run(tool(JUDGE, "-j", "64"), source=answered, output=judged)
    here.run(tool(SYNTH, "-j", "64"), source=judged)
    return {PANEL: asked, JUDGE: answered, SYNTH: judged}


def buying(here: Stand, window: int, count: int, options: list[str]) -> tuple[float, ...]:
    """Return calls a second and CPU ms per call of `fuse-panel`, then those of bare aiohttp; start-up left out."""
    few = max(4, window)
    found = []
    for _ in range(3):
        command = tool(PANEL, "-j", str(window), *options)
        took = [here.run(command, source=questions(n, n, 100)) for n in (few, few + count)]
        bought = took[1] - took[0]
        least = floor(here, "calls", here.url, str(MEMBERS * count), str(window))
        found.append((MEMBERS * count / bought.wall_s, bought.cpu_s * 1000 / (MEMBERS * count), *least))
    return tuple(map(statistics.median, zip(*found, strict=True)))


BENCHMARKS = {
    function.__name__: function for function in (startup, replay, code, report, calls, tools, memory, soak, serve)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; all where none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        rows += BENCHMARKS[name]()
    print("\n".join(table(rows)))
    if options.json:
        figures = [{**asdict(row), "ratio": row.ratio} for row in rows]
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
