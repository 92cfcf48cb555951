"""All the tools of an agent: those of files, commands, the plan that it keeps to, the council, and the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.runs.agent.beneath import RefusedPath
from fusiontools.runs.agent.file_tools import Ask, FileTools
from fusiontools.runs.agent.workspace import Workspace
from fusiontools.tools.tool import Arguments, RunTool, Tool, ToolContext, ToolResult

_COUNCIL_S, _FINISH_S = 3600.0, 3600.0
_MOST_FILES = 12
State = Literal["open", "done", "dropped"]
_MARKS = {"open": "[ ]", "done": "[x]", "dropped": "[-]"}
#: Asks the panel: a question and paths; returns its answer.
Convene = Callable[[str, Sequence[str]], Awaitable[str]]
#: Ends the turn with a summary; returns why not, or None.
Finish = Callable[[str], Awaitable[str | None]]


class WorkPlan(Struct):
    """The steps that the model has said it will take: text, state and remark of each."""

    steps: list[tuple[str, State, str]] = []

    @property
    def open_steps(self) -> list[int]:
        """The numbers of those that are neither done nor dropped."""
        return [number for number, (_, state, _) in enumerate(self.steps, 1) if state == "open"]

    def __str__(self) -> str:
        """Return the plan as a numbered list."""
        rows = enumerate(self.steps, 1)
        return "\n".join(f"{n}. {_MARKS[state]} {text}{f' ({why})' if why else ''}" for n, (text, state, why) in rows)


@dataclass
class WorkTools:
    """The tools of one turn.

    Args:
        planned: whether nothing is changed before a plan stands.
        council: asks the panel; None gives no such tool.
        finish: ends the turn.
        ask: asks the person before every change; None changes without.
        show_plan: shows the plan as it stands.
    """

    space: Workspace
    planned: bool
    council: Convene | None
    finish: Finish
    ask: Ask | None
    show_plan: Callable[[WorkPlan], None]
    plan: WorkPlan = field(default_factory=WorkPlan)
    files: FileTools = field(init=False)

    def __post_init__(self) -> None:
        base = self.space.copy.base
        self.files = FileTools(
            self.space.files,
            self.space.options.rules,
            self.space.sandbox.user,
            self.space.list_files,
            self.ask,
            lambda path: path in base and base[path].names > 1,
        )

    def all(self) -> list[Tool]:
        """Return the tools."""
        tools = [*self.files.tools(), self._bash(), self._end()]
        if self.planned:
            tools = [self._behind_plan(tool) for tool in tools] + [self._plan(), self._step()]
        return tools if self.council is None else [*tools, self._council()]

    def _bash(self) -> Tool:
        tool = self.space.shell.tool()
        if self.ask is None:
            return tool
        ask = self.ask

        async def run(arguments: Arguments, context: ToolContext) -> ToolResult:
            if (why := await ask("run a command", arguments["command"])) is not None:
                return ToolResult(f"the person said no{': ' + why if why else ''}", "refused")
            return await tool.run(arguments, context)

        # Somebody may take his time to answer.
        return replace(tool, run=run, timeout_s=tool.timeout_s + _FINISH_S)

    def _end(self) -> Tool:
        async def run(arguments: Arguments, context: ToolContext) -> ToolResult:
            if self.planned and (left := self.plan.open_steps):
                numbers = ", ".join(map(str, left))
                return ToolResult(f"not finished: step {numbers} of the plan is open; do it, or drop it", "error")
            why = await self.finish(arguments["summary"])
            return ToolResult("finished") if why is None else ToolResult(why, "error")

        return _tool(
            "finish", "End the turn: the task is done, or cannot be done.", run,
            {"summary": {"type": "string", "minLength": 1, "description": "What was done and why, for the person."}},
            timeout_s=_FINISH_S,
        )  # fmt: skip

    def _behind_plan(self, tool: Tool) -> Tool:
        """Return a tool that changes something only where a plan stands."""
        if tool.name in ("read", "search"):
            return tool

        def check(arguments: Arguments, context: ToolContext) -> str | None:
            if not self.plan.steps:
                return "no plan stands yet: look at what matters with read and search, then call plan"
            return tool.check(arguments, context) if tool.check is not None else None

        return replace(tool, check=check)

    def _plan(self) -> Tool:
        async def run(arguments: Arguments, context: ToolContext) -> ToolResult:
            if self.plan.steps:
                return ToolResult(f"the plan stands, and you keep to it:\n{self.plan}", "refused")
            steps = [(text, "open", "") for text in arguments["steps"]]
            if self.ask is not None:
                shown = "\n".join(f"{n}. {text}" for n, (text, _, _) in enumerate(steps, 1))
                if (why := await self.ask("work by this plan", shown)) is not None:
                    return ToolResult(f"the person said no{': ' + why if why else ''}; make another plan", "refused")
            self.plan.steps = steps  # type: ignore[assignment]
            self.show_plan(self.plan)
            return ToolResult(f"the plan:\n{self.plan}")

        steps = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 40}
        return _tool("plan", "Say which steps you will take, before you change anything.", run, {"steps": steps})

    def _step(self) -> Tool:
        async def run(arguments: Arguments, context: ToolContext) -> ToolResult:
            number, state, why = arguments["number"], arguments["state"], arguments.get("why", "")
            if number > len(self.plan.steps):
                return ToolResult(f"the plan has {len(self.plan.steps)} steps", "error")
            if state == "dropped" and not why:
                return ToolResult("say why the step is dropped", "error")
            self.plan.steps[number - 1] = (self.plan.steps[number - 1][0], state, why)
            self.show_plan(self.plan)
            return ToolResult(f"the plan:\n{self.plan}")

        properties: dict[str, Any] = {
            "number": {"type": "integer", "minimum": 1},
            "state": {"enum": ["done", "dropped"], "type": "string"},
            "why": {"type": "string"},
        }
        return _tool("step", "Say that a step of the plan is done, or dropped and why.", run, properties, ["why"])

    def _council(self) -> Tool:
        async def run(arguments: Arguments, context: ToolContext) -> ToolResult:
            assert self.council is not None  # noqa: S101 - there is no such tool without
            try:
                return ToolResult(await self.council(arguments["question"], arguments.get("files", [])))
            except RefusedPath as error:
                return ToolResult(str(error), "error")
            except OSError as error:
                return ToolResult(f"a file cannot be read: {error.strerror}", "error")

        properties: dict[str, Any] = {
            "question": {"type": "string", "minLength": 1, "description": "Whole: they know nothing else."},
            "files": {"type": "array", "items": {"type": "string"}, "maxItems": _MOST_FILES,
                      "description": "Paths of the files that matter; they are shown them."},
        }  # fmt: skip
        said = "Ask several models a hard question; one answer comes back that weighs theirs."
        return _tool("council", said, run, properties, ["files"], timeout_s=_COUNCIL_S)


def _tool(
    name: str,
    description: str,
    run: RunTool,
    properties: dict[str, Any],
    optional: Sequence[str] = (),
    timeout_s: float = 60.0,
) -> Tool:
    required = [name for name in properties if name not in optional]
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Tool(name, description, parameters, run, ("machine",), repeatable=False, timeout_s=timeout_s)
