"""What the same work costs at the least, in a process of its own.

floors.py records FILE COUNT            read, check and write records: prints records per second
floors.py calls URL COUNT CONCURRENCY   bare aiohttp: prints calls per second and CPU ms per call
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path


def records(path: str, count: str) -> None:
    from stand import lines_of

    from fusiontools.record import jsonl

    lines = list(lines_of(Path(path), int(count)))
    jsonl.parse(lines[0])
    started = time.perf_counter()
    for line in lines:
        jsonl.write(jsonl.parse(line))
    print(len(lines) / (time.perf_counter() - started))


async def calls(url: str, count: str, concurrency: str) -> None:
    import aiohttp
    import orjson

    left = int(count)

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            body = {"model": "fake/a", "messages": [{"role": "user", "content": f"Question {left % 1000}?" * 4}]}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                orjson.loads(await response.read())

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, json_serialize=lambda v: orjson.dumps(v).decode()) as session:
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*[ask(session) for _ in range(int(concurrency))])
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    print(int(count) / wall_s, cpu_s * 1000 / int(count))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["records", path, count]:
            records(path, count)
        case ["calls", url, count, concurrency]:
            import uvloop

            uvloop.run(calls(url, count, concurrency))
        case _:
            sys.exit(__doc__)
