"""Count the files of the package in which a warm chat request runs anything.

    python tests/bench/touched.py [CHAIN]      `panel | synth` where none is named

It starts `fuse-serve` before the fake upstream, asks one question to warm it up and then another one, and prints how
many files under `fusiontools/` a function ran in meanwhile, in any thread, and how often in each.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from run import stand

RECIPE = "panel: [fake/a, fake/b, fake/c]\njudge: fake/judge\nsynth: fake/synth\n"
CHAT = "/v1/chat/completions"


def main(chain: str = "panel | synth") -> None:
    with stand() as here:
        recipe = here.folder / "recipe.yaml"
        recipe.write_text(f"{RECIPE}chain: {chain}\n")
        with served(recipe, here.environment()) as (url, process):
            ask(url, "Which of them holds, and why?")
            os.kill(process.pid, signal.SIGUSR1)
            ask(url, "And which of them does not?")
            os.kill(process.pid, signal.SIGUSR1)
            calls = json.loads(process.stdout.readline())
    print(f"{len(calls)} files")
    for name, count in sorted(calls.items(), key=lambda item: -item[1]):
        print(f"{count:6,} {name}")


@contextlib.contextmanager
def served(recipe: Path, environment: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `fuse-serve` under this file's count; yields its URL and its process."""
    command = [sys.executable, __file__, "--count", "-c", str(recipe), "--port", "0"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            said = process.stderr.readline()
            if "listening on " not in said:
                raise RuntimeError(said + process.stderr.read())
            yield said.split("listening on ")[1].strip(), process
        finally:
            process.terminate()


def ask(url: str, question: str) -> None:
    body = {"model": "fusion", "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(url + CHAT, json.dumps(body).encode(), {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        json.load(response)


def count() -> None:
    """Be `fuse-serve`; the first SIGUSR1 begins to count, the second one prints the calls of each file as JSON."""
    import fusiontools
    from fusiontools.cli.serve import main as serve

    root = f"{Path(fusiontools.__file__).parent}{os.sep}"
    calls: Counter[str] = Counter()
    counting = False

    def look(frame: FrameType, event: str, _: object) -> None:
        if counting and event == "call" and frame.f_code.co_filename.startswith(root):
            calls[frame.f_code.co_filename.removeprefix(root)] += 1

    def turn(*_: object) -> None:
        nonlocal counting
        counting = not counting
        if not counting:
            print(json.dumps(calls), flush=True)

    signal.signal(signal.SIGUSR1, turn)
    threading.setprofile(look)
    sys.setprofile(look)
    sys.argv = ["fuse-serve", *sys.argv[2:]]
    serve()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        count()
    else:
        main(*sys.argv[1:])
