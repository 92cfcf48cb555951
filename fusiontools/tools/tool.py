"""A tool that a member may use: what it is, what its runs share, and what came of one run."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, NotRequired, TypedDict, cast

from msgspec import Struct
from msgspec.structs import force_setattr

from fusiontools.record import jsonl
from fusiontools.record.clean import clean
from fusiontools.tools.seen_urls import without_repeated

#: What came of a run. `error`: the call or the tool was wrong; `blocked`: somebody keeps programs out; `refused`: our
#: own rules, or a limit of who was asked, forbid it; `timeout`: it took too long.
ToolStatus = Literal["ok", "error", "blocked", "refused", "timeout"]
#: What a tool may touch: the network behind the guard of `addresses.py`, this machine in its sandbox, a server of MCP.
Reach = Literal["network", "machine", "server"]
Arguments = Mapping[str, Any]


class ToolSource(TypedDict):
    """A page that a result rests on: `search` where an engine named it, `fetched` where it was read."""

    url: str
    title: str
    how: Literal["search", "fetched"]
    snippet: NotRequired[str]
    date: NotRequired[str]


class ToolResult(Struct, frozen=True, dict=True):
    """What a run gave. Equal results have equal bytes, and come back from them.

    Args:
        text: what the model is told; cleaned of what cannot be seen.
        sources: the pages that it rests on, in their order.
        cost_usd: what the run cost; None where nobody knows.
        cacheable: whether it may stand for equal runs of other records too, as a failure of the moment may not.
    """

    text: str
    status: ToolStatus = "ok"
    sources: tuple[ToolSource, ...] = ()
    cost_usd: float | None = 0.0
    cacheable: bool = True

    def __post_init__(self) -> None:
        force_setattr(self, "text", clean(self.text))
        force_setattr(self, "sources", tuple(_cleaned(source) for source in self.sources))

    @cached_property
    def size_bytes(self) -> int:
        """The size of the text as UTF-8."""
        return len(self.text.encode())

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the text as UTF-8, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def to_json(self) -> bytes:
        """Return the result as the journal keeps it."""
        kept = {"text": self.text, "status": self.status, "sources": self.sources, "cost_usd": self.cost_usd}
        return jsonl.dumps({**kept, "cacheable": self.cacheable})

    @classmethod
    def from_json(cls, data: bytes) -> ToolResult:
        """Read what `to_json` wrote."""
        kept = jsonl.loads(data)
        return cls(**{**kept, "sources": tuple(kept["sources"])})


def _cleaned(source: ToolSource) -> ToolSource:
    return cast(ToolSource, {key: " ".join(clean(str(value)).split()) for key, value in source.items()})


class ToolContext(Struct, eq=False, weakref=True):
    """What the runs of one response share: where the response stands, and which addresses it has seen.

    Args:
        place: what tells the response from the others: record, member, sample and the like.
        record: the record's id.
        epoch: which repetition of the question it belongs to; each looks things up anew.
        texts: what the person wrote: addresses in it may be fetched.
        memory: the results of this record by key; one dictionary for all its members.
    """

    record: str = ""
    place: tuple[str | int, ...] = ()
    epoch: int = 0
    texts: list[str] = []
    memory: dict[bytes, ToolResult] = {}
    #: The addresses that searches returned.
    found: set[str] = set()
    #: Told of each run when it is over, also where others of its message are not.
    on_run: Callable[[ToolRun], Awaitable[None]] | None = None
    #: How often each call that must not be made once for all was made, for its key.
    made: dict[bytes, int] = {}
    #: The last call and how often in a row.
    last: tuple[bytes, int] = (b"", 0)

    def note(self, result: ToolResult, arguments: Arguments) -> None:
        """Remember what the model has now been shown, but for what it has told the tool itself."""
        self.texts.append(without_repeated(result.text, arguments))
        self.note_found(source["url"] for source in result.sources if source["how"] == "search")

    def note_found(self, urls: Iterable[str]) -> None:
        """Remember addresses that a search returned, whoever made it."""
        urls = list(urls)
        self.found.update(urls)
        self.texts += urls


RunTool = Callable[[Arguments, ToolContext], Awaitable[ToolResult]]


class Tool(Struct, frozen=True):
    """A description for the model, and the function behind it.

    Args:
        name: what the model calls it: letters, digits, `_` and `-`, at most 64.
        parameters: the JSON schema of its arguments, an object's.
        run: takes arguments that fit the schema; what goes wrong is a result, never an exception.
        reach: what it may touch.
        settings: what else decides its results, part of the journal's key; never a secret.
        check: says why these arguments may not be run here and now, or None; decided anew in a replay.
        repeatable: whether equal runs give equal results and change nothing, so that one stands for all.
        timeout_s: when a run is cut off, whatever it does.
        max_chars: how much of the text the model is shown.
        true_name: what its server calls it, where that is another name.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: RunTool
    reach: tuple[Reach, ...] = ()
    settings: Mapping[str, Any] = {}
    check: Callable[[Arguments, ToolContext], str | None] | None = None
    repeatable: bool = True
    timeout_s: float = 60.0
    max_chars: int = 40_000
    true_name: str = ""

    def declaration(self) -> dict[str, Any]:
        """Return the tool as OpenAI's chat completions declare a function."""
        said = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": said}


class ToolRun(Struct, frozen=True):
    """One call of a tool and what came of it: for the ledger, `tool_runs`, and the message to the model.

    Args:
        name: the tool's true name.
        arguments: as they were run; as they came where they could not be read.
        how: `made` now, `shared` with an equal run of this record, `replayed` from the journal, or `rejected` before
            anything ran.
    """

    name: str
    arguments: Any
    result: ToolResult
    how: Literal["made", "shared", "replayed", "rejected"]
    latency_s: float
    #: Whether it was rejected because it had been made just before, again and again.
    repeats: bool = False

    @property
    def cost_usd(self) -> float | None:
        """What this run cost; another's result costs nothing again."""
        return self.result.cost_usd if self.how == "made" else 0.0


def bounded(text: str, limit: int, what: str = "characters") -> str:
    """Return the text, or its head and its tail with what was left out said first."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    cut = f"[cut: {limit} of {len(text)} {what} are shown, the beginning and the end]\n"
    return f"{cut}{text[:head]}\n[… {len(text) - limit} {what} left out …]\n{text[-(limit - head) :]}"


def known_names(names: Iterable[str], limit: int = 20) -> str:
    """Return the names of tools as a sentence lists them, not more than a few."""
    listed = sorted(names)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
