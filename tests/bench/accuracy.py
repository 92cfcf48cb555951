"""How often the embedded model is right: one sample, greedy, by vote, and fused, by the real pipeline on our questions.

Usage: python tests/bench/accuracy.py. Prints a Markdown table with standard errors; takes about four minutes.
An answer counts as right where it contains the target as a whole word or number.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path

QUESTIONS = Path(__file__).with_name("questions.jsonl")


def piped(*commands: str, records: list[dict] | None = None) -> list[dict]:
    """Run the questions, or records that have come further, through a shell pipeline and return its records."""
    line = " | ".join(commands)
    lines = "".join(json.dumps(record) + "\n" for record in records).encode() if records else QUESTIONS.read_bytes()
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], input=lines, stdout=subprocess.PIPE)
    return [json.loads(record) for record in done.stdout.splitlines()]


def right(answer: str, target: str) -> bool:
    """Return whether the answer contains the target as a whole."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", answer.lower())
    return re.search(rf"(?<![\w.]){re.escape(target.lower())}(?!\w|\.\d)", plain) is not None


def score(record: dict, answers: list[str]) -> float:
    """Return the share of these answers that is right."""
    targets = record["meta"]["target"]
    targets = targets if isinstance(targets, list) else [targets]
    hits = [any(right(answer, target) for target in targets) for answer in answers]
    return sum(hits) / len(hits)


def cell(scores: list[float]) -> str:
    """Return mean and standard error in percent."""
    mean = sum(scores) / len(scores)
    error = math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1) / len(scores))
    return f"{mean:.1%} ± {error:.1%}"


def main() -> None:
    fused = piped("fuse-panel -c local -q", "fuse-judge -q", "fuse-synth -q")
    voted = piped("fuse-vote -q", records=fused)
    greedy = piped("fuse-panel -c local -q --samples 1 --temperature 0")
    rows = {
        "one sample (mean of the panel)": [(r, score(r, [p["content"] for p in r["panel"]])) for r in fused],
        "greedy (one call, temperature 0)": [(r, score(r, [r["panel"][0]["content"]])) for r in greedy],
        "vote (the same five samples, `fuse-vote`)": [(r, score(r, [r["answer"]["content"]])) for r in voted],
        "fused (the same five samples, compared by code)": [(r, score(r, [r["answer"]["content"]])) for r in fused],
    }
    print("| | tuned on (60) | held out (60) | all (120) |\n|---|---|---|---|")
    for name, scored in rows.items():
        splits = [
            [s for r, s in scored if r["meta"]["split"] in wanted]
            for wanted in (["dev"], ["heldout"], ["dev", "heldout"])
        ]
        print(f"| {name} | " + " | ".join(map(cell, splits)) + " |")


if __name__ == "__main__":
    main()
