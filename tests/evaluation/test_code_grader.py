"""Programs that models wrote: what is taken for one, what it may do, and that only passing its checks scores."""

from __future__ import annotations

import asyncio
import stat
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from boxes import ADDING, FOUND, LONG_S, RIGHT, boxed_only, checks, every_box, passes
from samples import lines, response
from scripted import Scripted, open_door
from workdir import Run

from fusiontools.config.evaluation_options import GradeOptions
from fusiontools.errors import UsageError
from fusiontools.evaluation.code_grader import ProgramRunner, head_of, program_key, program_of
from fusiontools.evaluation.grade import grade
from fusiontools.evaluation.task import Code
from fusiontools.record import schemas
from fusiontools.stages.runtime import Runtime
from fusiontools.tools.sandbox import Sandbox

GRADE = str(Path(sys.executable).with_name("fuse-grade"))


@every_box
def test_a_right_program_passes_and_a_wrong_one_does_not(box: ProgramRunner) -> None:
    right = box.run(RIGHT, ADDING, LONG_S)
    wrong = box.run("def add(a, b):\n    return a - b\n", ADDING, LONG_S)

    assert (right.passed, right.said) == (True, "passed")
    assert (wrong.passed, wrong.said) == (False, "failed: AssertionError")


@every_box
@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("def add(a, b:", "the program does not load: SyntaxError"),
        ("1 / 0", "the program does not load: ZeroDivisionError"),
        ("def plus(a, b): return a + b", "the program defines no 'add'"),
        ("def add(a, b): raise KeyError(a)", "KeyError: "),
        ("add = 3", "'int' object is not callable"),
        ("def add(a): return a", "TypeError: add() takes 1 positional argument but 2 were given"),
    ],
)
def test_why_a_program_fails_is_said(box: ProgramRunner, program: str, why: str) -> None:
    outcome = box.run(program, ADDING, LONG_S)

    assert not outcome.passed
    assert why in outcome.said


#: Programs that score where checks and program share a process.
ATTACKS = {
    "it exits": "exit()",
    "it exits at once": "import os\nos._exit(0)",
    "it exits when it is called": "import sys\ndef add(a, b): sys.exit(0)",
    "it exits at once when it is called": "import os\ndef add(a, b): os._exit(0)",
    "it exits as a script": "import sys\nif __name__ in ('__main__', 'program'): sys.exit(0)",
    "it exits at the end": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef add(a, b): return 0",
    "it prints what a runner may wait for": "print('passed')\nprint('OK')\ndef add(a, b): return 0",
    "it equals everything": """
        class Same:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
        def add(a, b): return Same()
    """,
    "it equals everything, and is a number": """
        class Same(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = int.__hash__
        def add(a, b): return Same()
    """,
    "it makes assertions something else": """
        import builtins
        builtins.AssertionError = type('Calm', (Exception,), {})
        def add(a, b): return 0
    """,
    "it rewrites what is built in": """
        import builtins
        builtins.abs = builtins.len = builtins.all = builtins.any = builtins.isinstance = lambda *_: True
        def add(a, b): return 0
    """,
    "it looks at its caller": """
        import sys
        def add(a, b):
            frame = sys._getframe()
            while frame:
                frame.f_globals['check'] = lambda candidate: None
                frame = frame.f_back
            return 0
    """,
    "it writes to every file it has": """
        import os
        def add(a, b):
            for number in range(256):
                try: os.write(number, b'passed\\n' + b'0' * 32)
                except OSError: pass
            return 0
    """,
    "it speaks for the other side": """
        import os
        def add(a, b):
            for number in range(3, 256):
                try: os.write(number, b'{"value": 3, "args": []}\\n' * 9)
                except OSError: pass
            os._exit(0)
    """,
    "it closes what it has": "import os\nos.closerange(3, 256)\ndef add(a, b): return 3",
    "it kills itself": "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGKILL)",
    "it leaves a thread behind": """
        import os, threading
        threading.Thread(target=lambda: os._exit(0), daemon=True).start()
        def add(a, b):
            while True: pass
    """,
    "it traces": "import sys\nsys.settrace(lambda *a: None)\nsys.excepthook = lambda *a: None\ndef add(a, b): return 0",
    "it ends the checks by an exception of another kind": "def add(a, b): raise SystemExit(0)",
    "it interrupts": "def add(a, b): raise KeyboardInterrupt",
    "it raises what ends a generator": "def add(a, b): raise GeneratorExit",
    "it holds the line open": """
        import os
        def add(a, b):
            if os.fork(): os._exit(0)
            return 0
    """,
}


@every_box
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_only_passing_the_checks_scores(box: ProgramRunner, attack: str) -> None:
    assert not passes(box, attack)


NEAR = checks("assert abs(f() - 0.5) < 1e-6")
CHEATS = {
    "it is as near as one likes": "def __sub__(self, other): return self\n    def __abs__(self): return 0.0",
    "its distance is nothing": "def __sub__(self, other): return 0.0",
    "it is less than anything": "def __sub__(self, other): return self\n    def __abs__(self): return self\n"
    "    def __lt__(self, other): return True",
    "it becomes a number later": "def __sub__(self, other): return self\n    def __float__(self): return 0.0",
}


@every_box
@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS)
def test_no_number_of_the_program_s_own_is_as_near_as_it_likes(box: ProgramRunner, cheat: str) -> None:
    program = f"class Near:\n    {cheat}\ndef f(): return Near()\n"

    assert not passes(box, program, NEAR)
    assert passes(box, "def f(): return 0.5", NEAR)


@every_box
def test_a_program_that_does_not_end_is_cut_off_with_all_it_started(box: ProgramRunner) -> None:
    program = """
        import os
        def f():
            os.fork()
            while True: pass
    """

    outcome = box.run(textwrap.dedent(program), checks("f()"), 1.0)

    assert not outcome.passed
    assert outcome.said.startswith(("timeout: not through after 1 s", "failed: the program ended before the checks"))


@every_box
def test_memory_is_bounded(box: ProgramRunner) -> None:
    outcome = box.run("def f(): return len(bytearray(3 * 2**30))", checks("f()"), LONG_S)

    assert outcome.said.startswith("failed: MemoryError")


@every_box
def test_files_are_bounded(box: ProgramRunner) -> None:
    program = """
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def f():
            with open('big', 'wb') as file:
                file.write(bytes(33 * 2**20))
    """

    assert box.run(textwrap.dedent(program), checks("f()"), LONG_S).said.startswith("failed: OSError")


@every_box
def test_nothing_of_the_machine_is_told_to_a_program(box: ProgramRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-secret")
    program = """
        import os, sys
        def f(): return [sorted(os.environ), sys.argv, sys.stdin.read(), os.listdir('.')]
    """
    code = checks(
        """
        names, argv, told, files = f()
        assert set(names) <= {"LC_CTYPE", "PWD"}, names
        assert not any("def f" in word for word in argv), argv
        assert told == ""
        assert "program" not in "".join(files), files
        """
    )

    assert box.run(textwrap.dedent(program), code, LONG_S).said == "passed"


@boxed_only
def test_a_sandbox_has_no_network_no_home_and_nobody_beside_it() -> None:
    program = """
        import os, socket
        def f():
            reached = []
            for address in (('127.0.0.1', 22), ('192.0.2.1', 80)):
                try: socket.create_connection(address, 1); reached.append(address)
                except OSError: pass
            return reached, [name for _, name in socket.if_nameindex()], os.path.exists('/home')
        def pids(): return len([name for name in os.listdir('/proc') if name.isdigit()])
        def write():
            try: open('/usr/mine', 'w')
            except OSError: return True
    """
    code = checks('assert f() == ([], ["lo"], False), f()\nassert pids() < 5\nassert write()')

    assert FOUND is not None
    assert FOUND.run(textwrap.dedent(program), code, LONG_S).said == "passed"


HUMAN = Code("", "import math\n\ndef area(r: float) -> float:\n    '''Of a circle.'''\n", "area")
BODY = "    return math.pi * r * r\n"
LONG = "that is longer than it " * 9


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        f"```python\n{BODY}```",
        f"```python\n{textwrap.dedent(BODY)}```",
        f"def area(r):\n{BODY}",
        f"Here it is:\n\n```python\ndef area(r):\n{BODY}```\n\nIt uses pi.",
        f"```py\ndef area(r):\n{BODY}",
        f"First:\n```python\ndef area(r):\n    return 0\n```\nBetter:\n```python\ndef area(r):\n{BODY}```",
        f"```python\ndef area(r):\n{BODY}```\nThen run it:\n```python\nprint('a lot more', {LONG!r})\n```",
        f"```bash\npip install math\n```\n```\ndef area(r):\n{BODY}```",
        f"<think>```python\ndef area(r): return 1\n```</think>\n```python\ndef area(r):\n{BODY}```",
        f"1. Do this:\n   ```python\n   def area(r):\n   {BODY}   ```\n",
        f"Here:\n\n```python\ndef area(r):\n{BODY}```\n\nDone.\n".replace("\n", "\r\n"),
        f"~~~python\ndef area(r):\n{BODY}~~~\nDone.\n".replace("\n", "\r\n"),
        f"```python\r\ndef area(r):\n{BODY}```\r\nDone.\n",
        f"def area(r):\n{BODY}```\nThat is all there is to it.",
        f"Here it is: ```python\ndef area(r):\n{BODY}```\nDone.",
        f"- ```python\n  def area(r):\n  {BODY}  ```\n",
        f"> Here:\n> ```python\n> def area(r):\n> {BODY}> ```\n",
    ],
)  # fmt: skip
def test_the_program_in_a_text_is_found(text: str) -> None:
    program = program_of(text, HUMAN)

    space: dict[str, Any] = {}
    exec(program or "", space)  # noqa: S102 - these texts are ours
    assert round(space["area"](2), 3) == 12.566


@pytest.mark.parametrize("text", ["", " \n", "```bash\nls\n```"])
def test_where_there_is_no_program_none_is_found(text: str) -> None:
    assert program_of(text, ADDING) is None


def test_the_head_of_a_prompt_is_what_stands_before_the_function() -> None:
    assert head_of(HUMAN) == "import math\n\n"
    assert head_of(Code("", "Write area.", "area")) == ""
    assert head_of(Code("", "", "")) == ""


def test_programs_that_differ_in_layout_only_vote_together() -> None:
    same = ["def f(x):\n    return x+1", "def f(x): # so\n    '''Doc.'''\n    return (x + 1)"]

    assert len({program_key(program) for program in same}) == 1
    assert program_key("def f(x): return x") != program_key(same[0])
    assert program_key("def f(") is None


def coded(*texts: str, **meta: Any) -> Any:
    wanted = {"tests": ADDING.tests, "entry_point": "add", **meta}
    panel = [response("abcdef"[i], text) for i, text in enumerate(texts)]
    return {"id": "q1", "messages": [{"role": "user", "content": "Add."}], "meta": wanted, "panel": panel}


def test_programs_are_graded_and_equal_ones_vote_together() -> None:
    wrong = "def add(a, b): return 7"
    stage = grade(GradeOptions(unsafe=True, code_s=LONG_S), lambda record: ())

    result = asyncio.run(stage(coded(RIGHT, wrong, RIGHT + "# so"), Runtime(open_door(Scripted()))))

    schemas.check_record(result)
    first, second, third = result["grades"]
    assert [(each["grader"], each["score"]) for each in result["grades"]] == [("code", 1), ("code", 0), ("code", 1)]
    assert [each["said"] for each in result["grades"]] == ["passed", "failed: AssertionError", "passed"]
    assert first["key"] == third["key"] != second["key"]


def hidden(tmp_path: Path, env: dict[str, str], bwrap: str = "") -> dict[str, str]:
    """Return an environment in which bubblewrap is not to be found, or is this script."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if bwrap:
        (folder / "bwrap").write_text(bwrap)
        (folder / "bwrap").chmod(0o755)
    return {**env, "PATH": str(folder)}


@pytest.mark.parametrize("bwrap", ["", "#!/bin/sh\nexit 1\n"], ids=["not installed", "not working"])
def test_without_a_sandbox_no_program_is_run(run: Run, env: dict[str, str], tmp_path: Path, bwrap: str) -> None:
    result = run([GRADE], lines([coded(RIGHT)]), env=hidden(tmp_path, env, bwrap))

    assert (result.status, result.out) == (2, b"")
    assert result.err.startswith("fuse-grade: a task runs model-written programs, and this machine has no sandbox")
    assert "apt install bubblewrap" in result.err
    assert "--unsafe" in result.err


def test_without_a_sandbox_the_refusal_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    stage = grade(GradeOptions(), lambda record: ())

    with pytest.raises(UsageError) as refusal:
        asyncio.run(stage(coded(RIGHT), Runtime(open_door(Scripted()))))

    assert refusal.value.code == "no_sandbox"


def test_without_a_sandbox_other_tasks_are_graded(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    record = {**coded("391"), "meta": {"target": 391}}

    result = run([GRADE], lines([record]), env=hidden(tmp_path, env))

    assert (result.status, result.err) == (0, "")
    assert result.records[0]["grades"][0]["score"] == 1


def test_whoever_says_unsafe_gets_programs_run_without_a_sandbox(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    records = [coded(RIGHT, "exit()"), {**coded("def add(a, b): return a"), "id": "q2"}]

    result = run([GRADE, "--unsafe"], lines(records), env=hidden(tmp_path, env))

    assert (result.status, result.err) == (0, "")
    assert [[each["score"] for each in record["grades"]] for record in result.records] == [[1, 0], [0]]


@boxed_only
def test_with_a_sandbox_nothing_need_be_said(run: Run) -> None:
    result = run(["fuse-grade"], lines([coded(RIGHT, "exit()")]))

    assert (result.status, result.err) == (0, "")
    assert [each["score"] for each in result.records[0]["grades"]] == [1, 0]


def test_no_secret_and_no_source_stands_on_a_command_line(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nenv >> {seen}\nexec "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)

    passed = ProgramRunner(Sandbox("wrapper", (str(wrapper),))).run(RIGHT, ADDING, LONG_S).passed

    assert passed
    assert "a + b" not in seen.read_text()
    assert "candidate" not in seen.read_text()
