"""The programs that are known: how each is started so that it does nothing but answer, and how its output is read.

No tools, no MCP servers, no settings of a project, nothing kept on disk; the prompt comes by standard input. What each
flag is good for was tried with Claude Code 2.1.197 and Codex 0.171.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from fusiontools.config.models import CommandOutput
from fusiontools.llm.command_output import ProgramAnswer, objects_in, prose_in, read_paths, read_text
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from typing import Any

#: Of a model called so the program's own default is asked.
DEFAULT = "default"
#: A longer system prompt goes before the question, for a program that takes it as an argument.
MOST_SYSTEM_BYTES = 100_000


class Asked(Struct, frozen=True):
    """What a known program is started for.

    Args:
        model: None for the program's own default.
        system_file: a file with the same text as `system`; both are empty where nothing is to be told.
    """

    model: str | None
    system: str
    system_file: str
    effort: str | None


class Program(Struct, frozen=True):
    """A known program.

    Args:
        arguments: what stands behind its name.
        last: what stands behind the user's own arguments.
        read: its answer in what it printed.
        system_by_file: whether a long text can be its system prompt.
        plan_env: variables that a subscription needs, which a key takes the place of.
        home_env: variables that say where its login is kept.
        set_env: variables that are set for it.
    """

    arguments: Callable[[Asked], list[str]]
    read: Callable[[str], ProgramAnswer]
    last: tuple[str, ...] = ()
    system_by_file: bool = False
    plan_env: tuple[str, ...] = ()
    home_env: tuple[str, ...] = ()
    set_env: tuple[tuple[str, str], ...] = ()


def _claude(asked: Asked) -> list[str]:
    # `--tools` and its kin take all that follows: so each has its value behind an equals sign.
    flags = ["-p", "--output-format=json", "--tools=", "--strict-mcp-config", "--setting-sources="]
    flags += ["--no-session-persistence", "--disable-slash-commands"]
    flags += [f"--model={asked.model}"] if asked.model else []
    flags += [f"--effort={asked.effort}"] if asked.effort in ("low", "medium", "high", "xhigh", "max") else []
    return flags + ([f"--system-prompt-file={asked.system_file}"] if asked.system else [])


def _codex(asked: Asked) -> list[str]:
    # What stands before `exec` is ignored.
    flags = ["exec", "--json", "--skip-git-repo-check", "--ephemeral", "--ignore-user-config", "--ignore-rules"]
    flags += ["-s", "read-only", "--disable", "shell_tool", "--disable", "unified_exec"]
    settings = {"web_search": "disabled"}
    if asked.effort and asked.effort != "max":
        settings["model_reasoning_effort"] = asked.effort
    if asked.system:
        settings["developer_instructions"] = asked.system
    for name, value in settings.items():
        flags += ["-c", f"{name}={jsonl.dumps(value).decode()}"]
    return flags + (["-m", asked.model] if asked.model else [])


def _llm(asked: Asked) -> list[str]:
    flags = ["prompt", "--no-log"]
    flags += [f"--model={asked.model}"] if asked.model else []
    return flags + ([f"--system={asked.system}"] if asked.system else [])


#: Claude Code's result: the last object of the type, in one object, a list or lines.
_RESULT = CommandOutput(text="result", where={"type": "result"}, failed="is_error", cost_usd="total_cost_usd")


def _read_claude(printed: str) -> ProgramAnswer:
    answer = read_paths(_RESULT, printed)
    result = answer.found
    if not result:
        return answer
    usage = result.get("usage") or {}
    cached = _count(usage, "cache_read_input_tokens")
    written = _count(usage, "cache_creation_input_tokens")
    answer.usage = {
        "prompt_tokens": _count(usage, "input_tokens") + cached + written,
        "completion_tokens": _count(usage, "output_tokens"),
        "cached_tokens": cached,
        "reasoning_tokens": 0,
    }
    status = result.get("api_error_status")
    answer.status = status if isinstance(status, int) else None
    answer.cut = result.get("stop_reason") == "max_tokens"
    if result.get("subtype") != "success" and not answer.text:
        answer.failed = f"it ended with {result.get('subtype')}"
    return answer


def _read_codex(printed: str) -> ProgramAnswer:
    """Read Codex's events: a failed turn is a failure, an item called `error` may be a mere warning."""
    answer = ProgramAnswer(said=prose_in(printed))
    for event in objects_in(printed):
        match event:
            case {"type": "item.completed", "item": {"type": "agent_message", "text": str(text)}}:
                answer.text = text
            case {"type": "turn.completed", "usage": dict(usage)}:
                answer.usage = {
                    "prompt_tokens": _count(usage, "input_tokens"),
                    "completion_tokens": _count(usage, "output_tokens"),
                    "cached_tokens": _count(usage, "cached_input_tokens"),
                    "reasoning_tokens": _count(usage, "reasoning_output_tokens"),
                }
            case {"type": "turn.failed"}:
                error = event.get("error")
                said = error.get("message") if isinstance(error, dict) else error
                answer.failed = str(said or "the turn failed")
            case {"type": "error", "message": str(said)} if answer.said is None:
                answer.said = said
    return answer


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


PROGRAMS: dict[str, Program] = {
    "claude": Program(
        _claude,
        _read_claude,
        system_by_file=True,
        plan_env=("CLAUDE_CODE_OAUTH_TOKEN",),
        home_env=("CLAUDE_CONFIG_DIR",),
        # Or else it asks a model for the title of each session.
        set_env=(("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"), ("CLAUDE_CODE_DISABLE_TERMINAL_TITLE", "1")),
    ),
    "codex": Program(_codex, _read_codex, last=("-",), home_env=("CODEX_HOME",)),
    "llm": Program(_llm, read_text, home_env=("LLM_USER_PATH",)),
}


def asked_model(model: str) -> str | None:
    """Return the model that a program is told to ask; None for its own default."""
    return None if model == DEFAULT else model
