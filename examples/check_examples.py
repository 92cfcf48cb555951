"""A check for `fuse-pick --check`: the examples in a question, run on the program that answers it.

    fuse-pick --check 'python3 check_examples.py' --check-with examples/check_examples.py panel.jsonl

The examples are those of Python's own documents (`>>> add(1, 2)`, and below it what comes). It passes where there are
some and all of them hold.
"""

import doctest
import json
import sys
from pathlib import Path

asked = json.loads(Path("record.json").read_text())["messages"][-1]["content"]
# Where the examples stand in a docstring, its end is no part of what the last one prints.
question = asked.replace('"""', "").replace("'''", "")
space: dict[str, object] = {}
exec(compile(sys.stdin.read(), "program", "exec"), space)  # noqa: S102 - in the sandbox
examples = doctest.DocTestParser().get_examples(question)
found = doctest.DocTestRunner().run(doctest.DocTest(examples, space, "question", None, 0, question))
print(f"{found.attempted - found.failed} of {found.attempted} examples hold")
sys.exit(0 if found.attempted and not found.failed else 1)
