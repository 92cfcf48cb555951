"""A stand-in for Claude Code, Codex and LLM: a real process that reads its flags as the real ones do.

Which one it is stands in the name it is called by; what it does in the model's name, behind a plus sign (`m+limit`).
`programs` makes a folder in which all three are found; `script` makes a program of another name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMIT = "You've hit your session limit · resets 3:50pm (Asia/Tokyo)"
AUTH = "Invalid API key · Please run /login"


def programs(folder: Path) -> Path:
    """Return a folder with `claude`, `codex` and `llm` in it."""
    for name in ("claude", "codex", "llm"):
        script(folder / name)
    return folder


def script(file: Path, body: str = "") -> Path:
    """Write a program that runs this Python, or this module."""
    file.parent.mkdir(parents=True, exist_ok=True)
    own = (
        body
        or f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fake_program; fake_program.main()"
    )
    file.write_text(f"#!{sys.executable}\n{own}\n")
    file.chmod(0o755)
    return file


def main() -> None:
    sys.exit({"claude": claude, "codex": codex, "llm": llm}[Path(sys.argv[0]).name]())


def seen(**more: Any) -> str:
    """Return what the program sees of the world."""
    group = os.getpgid(0) == os.getpid()
    files = [file.name for file in Path.cwd().iterdir()]
    world = {"argv": sys.argv[1:], "env": dict(os.environ), "files": files, "cwd": str(Path.cwd()), "leads": group}
    return json.dumps(world | more)


def claude() -> int:
    if "CLAUDECODE" in os.environ:
        print("Error: Claude Code cannot be launched inside another Claude Code session.", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in ("-p", "--strict-mcp-config", "--no-session-persistence", "--disable-slash-commands"):
        parser.add_argument(flag, action="store_true")
    for flag in ("--output-format", "--setting-sources", "--model", "--effort", "--system-prompt-file"):
        parser.add_argument(flag)
    parser.add_argument("--tools", nargs="*")
    parser.add_argument("prompt", nargs="?")
    options = parser.parse_args()
    assert options.p
    assert options.output_format == "json"
    prompt = options.prompt or sys.stdin.read()
    system = Path(options.system_prompt_file).read_text() if options.system_prompt_file else None
    model, _, manner = (options.model or "").partition("+")
    usage = {"input_tokens": 5, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 2, "output_tokens": 7}
    result: dict[str, Any] = {
        "type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "session_id": "s",
        "total_cost_usd": 0.25, "stop_reason": "end_turn", "usage": usage, "result": f"{model} says {len(prompt)}.",
    }  # fmt: skip
    if manner == "echo":
        result["result"] = seen(prompt=prompt, system=system, tools=options.tools)
    return act(manner, result)


def act(manner: str, result: dict[str, Any]) -> int:
    """Print the result as Claude Code has been seen to do; return the exit status."""
    printed: Any = result
    status = 0
    match manner:
        case "limit" | "limit0":
            printed, status = {**result, "is_error": True, "result": LIMIT}, int(manner == "limit")
        case "limitprose":
            printed = {**result, "result": LIMIT}
        case "auth":
            printed, status = {**result, "is_error": True, "result": AUTH, "total_cost_usd": 0}, 1
        case "status":
            printed, status = {**result, "is_error": True, "api_error_status": 529, "result": "Overwhelmed."}, 1
        case "execution":
            del result["result"]
            printed = {**result, "subtype": "error_during_execution"}
        case "array":
            printed = [{"type": "system"}, {"type": "assistant"}, result]
        case "lines":
            print(
                '{"type":"system"}\nDebugger attached.\n{"type":"result","subtype":"success","result":"an earlier one"}'
            )
        case "none":
            printed = [{"type": "system"}]
        case "empty":
            printed = {**result, "result": ""}
        case "text":
            print("Something went wrong.")
            return 1
        case "crash":
            print("node: bad option\nsegmentation fault", file=sys.stderr)
            return 139
        case "hang" | "leaves":
            told = os.open(os.environ["LANG"], os.O_WRONLY)  # open until both have ended
            subprocess.Popen(["sleep", "1000"], pass_fds=[told])
            os.write(told, b"begun\n")
            if manner == "hang":
                time.sleep(1000)
        case "flood":
            while True:
                sys.stdout.write("x" * 2**20)
    print(json.dumps(printed))
    return status


def codex() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("exec", allow_abbrev=False)
    for flag in ("--json", "--skip-git-repo-check", "--ephemeral", "--ignore-user-config", "--ignore-rules"):
        run.add_argument(flag, action="store_true")
    run.add_argument("-s", choices=["read-only", "workspace-write", "danger-full-access"])
    run.add_argument("-m", default="default")
    run.add_argument("-c", action="append", default=[])
    run.add_argument("--disable", action="append", default=[])
    run.add_argument("prompt", nargs="?")
    options = parser.parse_args()
    if not options.skip_git_repo_check:
        print("Not inside a trusted directory and --skip-git-repo-check was not specified.", file=sys.stderr)
        return 1
    assert options.json
    # Whatever the prompt, standard input is read to its end.
    piped = sys.stdin.read()
    prompt = piped if options.prompt in (None, "-") else f"{options.prompt}\n<stdin>\n{piped}\n</stdin>"
    model, _, manner = options.m.partition("+")
    text = f"{model} says {len(prompt)}."
    if manner == "echo":
        text = seen(prompt=prompt, settings=options.c, sandbox=options.s, disabled=options.disable)
    warning = {"type": "item.completed", "item": {"type": "error", "message": "Model metadata not found."}}
    message = {"type": "item.completed", "item": {"type": "agent_message", "text": text}}
    usage = {"input_tokens": 21294, "cached_input_tokens": 9000, "output_tokens": 9, "reasoning_output_tokens": 4}
    done = {"type": "turn.completed", "usage": usage}
    events: list[Any] = [{"type": "thread.started"}, warning, {"type": "turn.started"}, message, done]
    if manner in ("fails", "limit"):
        said = "boom" if manner == "fails" else "You've hit your usage limit. Try again in 2 hours 5 minutes."
        events[3:] = [{"type": "error", "message": said}, {"type": "turn.failed", "error": {"message": said}}]
    if manner == "two":
        events.insert(3, {"type": "item.completed", "item": {"type": "agent_message", "text": "Let me think."}})
    print("\n".join(json.dumps(event) for event in events))
    return 0


def llm() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    run = parser.add_subparsers(required=True).add_parser("prompt", allow_abbrev=False)
    run.add_argument("-n", "--no-log", action="store_true")
    run.add_argument("-m", "--model")
    run.add_argument("-s", "--system")
    run.add_argument("prompt", nargs="?")
    options = parser.parse_args()
    prompt = options.prompt or sys.stdin.read()
    model, _, manner = (options.model or "").partition("+")
    if manner == "nokey":
        print("Error: No key found - add one using 'llm keys set openai'", file=sys.stderr)
        return 1
    said = f"{model} says {len(prompt)}."
    print(seen(prompt=prompt, system=options.system, logged=not options.no_log) if manner == "echo" else said)
    return 0
