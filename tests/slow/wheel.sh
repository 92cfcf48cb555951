#!/bin/sh
# Build the wheel and the sdist, install each into an empty environment, and run a real pipeline there, away from the checkout.
# Usage: sh tests/slow/wheel.sh PYTHON
set -eu

python=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --outdir "$work/dist" "$root" >/dev/null

for package in "$work"/dist/*.whl "$work"/dist/*.tar.gz; do
    rm -rf "$work/env"
    "$python" -m venv "$work/env"
    "$work/env/bin/pip" install --quiet --disable-pip-version-check "$package"
    cd "$work"
    PATH="$work/env/bin:$PATH"
    export PATH
    # Without extras the tools start, and say what is missing.
    status=0
    fuse-doctor -c local >"$work/said" || status=$?
    test "$status" -eq 3
    grep -q "fusiontools\[local\]" "$work/said"
    fuse-log size >/dev/null
    for words in "fuse-ask -c local hello" "fuse-mcp" "fuse-serve"; do
        status=0
        $words </dev/null 2>"$work/said" || status=$?
        test "$status" -eq 2
        grep -q "not installed: .*fusiontools\[" "$work/said"
        test "$(wc -l <"$work/said")" -eq 1
    done
    "$work/env/bin/pip" install --quiet --disable-pip-version-check "$package[local]"
    fuse-doctor -c local >/dev/null
    echo "What is the capital of France?" | fuse-panel -c local | fuse-judge | fuse-synth >"$work/answer.jsonl"
    "$work/env/bin/python" -c '
import json, pathlib, sys, fusiontools
from fusiontools.record.schemas import data_dir

record = json.load(open(sys.argv[1]))
assert "Paris" in record["answer"]["content"], record
assert data_dir("configs").is_relative_to(pathlib.Path(fusiontools.__file__).parent), data_dir("configs")
' "$work/answer.jsonl"
    echo "$(basename "$package"): installed, and a pipeline answered"
done
