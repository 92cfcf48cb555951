"""Race for a shared ceiling of $0.20, at endpoints that charge what they said, and at some that charge more.

    python tests/faults/money_race.py [REQUESTS]

Many records of one run, many clients of one server, and those of several servers and workers that share a day's money:
200 requests each where nothing is said. What was spent is counted where it is earned, at the stand-in. It may be the
ceiling, and where the endpoint charges more than its price list says, one call's surprise on top, over all processes.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from bounds import Bound, Scene, run_part, scene
from serving import Server, start_server

CEILING_USD = 0.20
CLIENTS = 64
#: What the shortest answer may cost by the price list: 50 tokens, and the prompt.
LEAST_LISTED_USD = 0.00005
#: What a call is charged: no more than the price list says of a long one, more, much more, everything.
CHARGES_USD = (0.002, 0.01, 0.05, 5.0)
DAY_CHARGES_USD = (0.01, 5.0)
#: What clients say to get round a ceiling; harmless where it is none.
TRICKS: tuple[dict[str, Any], ...] = (
    *({}, {}, {}, {"max_tokens": 50}, {"n": -1_000_000}, {"n": "5"}, {"n": 64}, {"max_tokens": -5}),
    *({"max_completion_tokens": 10**9}, {"max_tokens": 0}, {"models": ["fake/dear"]}, {"stream": True}),
)


def model_of(charge_usd: float) -> str:
    return f"fake/a+slow=0.02+cost={charge_usd}"


def recipe(charge_usd: float) -> str:
    """Return a recipe whose price list says less than is charged, or more."""
    priced = {"model": model_of(charge_usd), "price_usd_per_mtok": {"prompt": 0.1, "completion": 1}}
    return f"models: {{m: {json.dumps(priced)}}}\npanel: [m]\nchain: panel | vote\nlimits: {{retries: 0}}\n"


def spent(here: Scene, charge_usd: float, who: str) -> Bound:
    """Return what was earned since the last reset, and what it may be."""
    calls = sum(here.upstream.stats()["per_model"].values())
    here.upstream.reset()
    surprise_usd = charge_usd - LEAST_LISTED_USD
    most_usd = CEILING_USD + surprise_usd
    return Bound("money", f"{who}, ${charge_usd:g} a call: spent", round(calls * charge_usd, 6), round(most_usd, 6))


def race_in_shell(here: Scene, charge_usd: float, count: int) -> Bound:
    """Let the records of one run race."""
    (here.folder / "race.yaml").write_text(recipe(charge_usd))
    source = here.folder / "asked.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"Question {i}?"}) + "\n" for i in range(count)))
    command = ["fuse-panel", "-q", "-c", "race.yaml", "-j", str(CLIENTS), "--max-cost-usd", str(CEILING_USD)]
    with here.start(command, source, here.folder / "output.jsonl") as process:
        process.wait()
    return spent(here, charge_usd, "one run")


def ask(server: Server, number: int) -> None:
    """Ask one question, fused or straight, with a trick or without; what comes of it is seen where it is paid for."""
    draw = random.Random(number)
    more = {"model": draw.choice(("fusion", "m")), **draw.choice(TRICKS)}
    with contextlib.suppress(httpx.HTTPError):
        server.chat(f"Question {number}?", **more)


def race_to_servers(here: Scene, charge_usd: float, count: int, servers: int, *options: str) -> None:
    """Let clients of several servers race."""
    with contextlib.ExitStack() as running, ThreadPoolExecutor(CLIENTS) as clients:
        urls = []
        for number in range(servers):
            folder = here.folder / f"{charge_usd}-{len(options)}-{servers}-{number}"
            folder.mkdir(exist_ok=True)
            urls.append(running.enter_context(start_server(folder, here.env, *options, recipe=recipe(charge_usd))))
        list(clients.map(lambda number: ask(urls[number % servers], number), range(count)))


def race_to_days(charge_usd: float, count: int) -> Iterator[Bound]:
    """Let clients race for a day's money: at one server, at three, at one with three workers."""
    day = ("--max-day-cost-usd", str(CEILING_USD))
    for who, servers, workers in (("a server's day", 1, 1), ("three servers' day", 3, 1), ("three workers' day", 1, 3)):
        with scene() as here:  # a home of its own, with a day that nobody has spent from
            race_to_servers(here, charge_usd, count, servers, *day, "--workers", str(workers))
            yield spent(here, charge_usd, who)


def measure(count: int) -> Iterator[Bound]:
    """Race in every way for every charge."""
    for charge_usd in CHARGES_USD:
        with scene() as here:
            yield race_in_shell(here, charge_usd, count)
            race_to_servers(here, charge_usd, count, 1, "--max-cost-usd", str(CEILING_USD))
            yield spent(here, charge_usd, "one server")
    for charge_usd in DAY_CHARGES_USD:
        yield from race_to_days(charge_usd, count)


if __name__ == "__main__":
    sys.exit(run_part(measure, 200))
