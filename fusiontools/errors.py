"""Every failure that a user can meet: its code, its words, and the exit status it leads to.

FusionError
├── UsageError          the command line, the recipe or the environment is wrong: exit 2
├── InputError          one input line or record is wrong: reported with its place, the rest goes on
├── CallFailed          a model was asked and gave nothing usable; retried, then data in the record
└── StageFailed         a stage could not do its part; degrades, or becomes the record's `error`

Every `message` is for a person: what failed, why, and what to do where something can be done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

__version__ = "0.1.0"

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING_USABLE = 3
EXIT_BUDGET = 4
EXIT_CONDITION = 5
EXIT_COME_AGAIN = 75
EXIT_INTERRUPTED = 130

#: What each exit status means.
EXITS: dict[int, str] = {
    EXIT_OK: "no record failed; a closed pipe is no error",
    EXIT_SOME_FAILED: "some records failed or could not be read; the others went on",
    EXIT_USAGE: "the command line, the recipe or the environment is wrong",
    EXIT_NOTHING_USABLE: "nothing usable came in or went out",
    EXIT_BUDGET: "stopped by `--max-cost-usd`",
    EXIT_CONDITION: "a `--fail-…` condition of `fuse-report` holds; nothing keeps to the limits of `fuse-tune`, or to "
    "the risk of `fuse-calibrate`",
    EXIT_COME_AGAIN: "not yet: batch jobs are under way (`--batch`); come again",
    EXIT_INTERRUPTED: "interrupted (143: terminated)",
}

#: How a call to a model fails.
CallCode = Literal[
    "timeout",
    "deadline",
    "rate_limited",
    "upstream",
    "connect",
    "connection",
    "auth",
    "payment",
    "not_found",
    "bad_request",
    "context_length",
    "bad_response",
    "empty",
    "refused",
    "truncated",
    "engine",
    "program",
    "offline_miss",
    "cut",
    "stopped",
    "price_unknown",
    "budget",
    "record_budget",
    "caller_budget",
    "unknown_endpoint",
    "not_run",
]
#: What a line of the ledger says of its call.
CallStatus = Literal["ok", "cancelled", "tool_failed"] | CallCode
#: What a stage could not do although it went on: a `degraded` note, which may begin as a `StageFailed`.
StageCode = Literal[
    "member_failed",
    "one_survivor",
    "tool_ignored",
    "judge_failed",
    "no_judge",
    "no_synth",
    "partial_analysis",
    "bad_analysis",
    "judge_on_panel",
    "bad_form",
    "synth_failed",
    "refine_failed",
    "guard_failed",
    "no_ranking",
    "order_sensitive",
    "pick_failed",
    "bad_pick",
    "partial_pick",
    "pairwise_bounded",
    "check_failed",
    "nothing_to_count",
    "unknown_weight",
    "not_weighed",
    "abstained",
    "threshold_void",
    "route_failed",
    "bad_route",
    "no_solo_model",
    "kept_earlier",
    "layer_failed",
    "fold_cut",
    "no_target",
    "bad_task",
    "bad_verdict",
    "no_tools",
    "unknown_source",
    "compact_failed",
    "interrupted",
]
#: Why a record has no answer.
RecordCode = Literal["all_failed", "budget", "bug", "interrupted", "bad_record"]


class FailureCode(NamedTuple):
    """What a code means.

    Args:
        where: what it stands in: `call` (`panel[].error`, `calls[].status`), `degraded`, `error`, `grade`.
        meaning: in Markdown.
        statuses: what an endpoint's HTTP response is called by its status alone.
    """

    where: str
    meaning: str
    statuses: tuple[int, ...] = ()


#: Every code that a record may hold. Programs may rely on them; the words beside a code are for people.
FAILURE_CODES: Mapping[CallStatus | StageCode | RecordCode, FailureCode] = {
    "ok": FailureCode("call", "It went well."),
    "timeout": FailureCode(
        "call", "No answer within `--timeout`, or HTTP 408. Retried unless text was shown already.", (408,)
    ),
    "deadline": FailureCode("call", "The record's `--deadline` was over."),
    "rate_limited": FailureCode("call", "HTTP 429, or too much at once in other words. Retried.", (429,)),
    "upstream": FailureCode("call", "HTTP 5xx, or an error inside a 200. Retried."),
    "connect": FailureCode("call", "The endpoint cannot be reached. Retried."),
    "connection": FailureCode(
        "call",
        "The connection broke, or the stream ended early. Retried unless text was shown already.",
    ),
    "auth": FailureCode("call", "HTTP 401 or 403: the key is wrong or not allowed.", (401, 403)),
    "payment": FailureCode("call", "HTTP 402, or no credit in other words.", (402,)),
    "not_found": FailureCode("call", "HTTP 404, or no such model in other words.", (404,)),
    "bad_request": FailureCode("call", "The endpoint refuses the request, in its own words."),
    "context_length": FailureCode("call", "The prompt is longer than the model's context.", (413,)),
    "bad_response": FailureCode(
        "call",
        "The endpoint did not answer a chat completion. Retried where it was no JSON at all.",
    ),
    "empty": FailureCode("call", "The model answered nothing."),
    "refused": FailureCode("call", "The model, or the endpoint's filter, refused."),
    "truncated": FailureCode("call", "`max_tokens` were used up before anything visible came."),
    "engine": FailureCode("call", "The embedded engine failed."),
    "program": FailureCode("call", "A program (`api: command`) failed, in its own words."),
    "offline_miss": FailureCode("call", "`--offline`, and the journal does not hold it."),
    "stopped": FailureCode("call", "Whoever asked stopped this call; the others went on."),
    "cut": FailureCode("call", "Not in when the grace after `--quorum` was over."),
    "tool_failed": FailureCode("call", "A tool gave no result; `tool_runs` says why. In `calls` only."),
    "cancelled": FailureCode("call", "Given up while it ran; in `calls` only."),
    "price_unknown": FailureCode("call", "A cost limit is set and nobody knows this model's price."),
    "budget": FailureCode("call, error", "`--max-cost-usd` would have been passed."),
    "record_budget": FailureCode(
        "call",
        "`--max-record-cost-usd`, or what a request to a server may cost, would have been passed.",
    ),
    "caller_budget": FailureCode("call", "What a server's caller may spend in a day would have been passed."),
    "not_run": FailureCode(
        "call",
        "A batch job ended without this call: it expired, was cancelled or refused, or lost it. Sent again.",
    ),
    "all_failed": FailureCode("error", "No member gave anything usable."),
    "bad_record": FailureCode("error", "`fuse-ray`: what the record says itself cannot be, such as its recipe."),
    "bug": FailureCode("error", "A bug in fusiontools; where it is stands on standard error, once. The run goes on."),
    "member_failed": FailureCode("degraded", "A member failed; `detail` says which and why."),
    "one_survivor": FailureCode("degraded", "One response came of several: nothing to compare, and it is the answer."),
    "tool_ignored": FailureCode("degraded", "A server: a tool that nobody here runs was not shown to the models."),
    "judge_failed": FailureCode("degraded", "A judge gave nothing."),
    "no_judge": FailureCode(
        "degraded",
        "No judge is named by `-m` or a recipe: code compared the responses, or picked the best one unasked.",
    ),
    "no_synth": FailureCode(
        "degraded",
        "No synthesizer is named by `-m` or a recipe: the best response is the answer.",
    ),
    "unknown_endpoint": FailureCode(
        "call",
        "The record names an endpoint that only another recipe defines; give that one with `-c`.",
    ),
    "partial_analysis": FailureCode(
        "degraded",
        "A judge's reply has no ranking; it may have been cut off by `--max-tokens`.",
    ),
    "bad_analysis": FailureCode("degraded", "A judge's reply could not be read."),
    "judge_on_panel": FailureCode("degraded", "A judge also sits on the panel; models prefer their own words."),
    "bad_form": FailureCode(
        "degraded",
        "A response, or the answer, is not what `response_format` asks for, which its endpoint does not take.",
    ),
    "synth_failed": FailureCode("degraded", "The synthesizer gave nothing: a panel response stands in."),
    "refine_failed": FailureCode("degraded", "The revision of `--refine` failed: the answer stays as it was."),
    "guard_failed": FailureCode("degraded", "The judge of `--guard` gave no verdict: the written answer stays."),
    "no_ranking": FailureCode(
        "degraded",
        "`--top` without a judge's ranking: the longest finished responses are fused.",
    ),
    "order_sensitive": FailureCode(
        "degraded",
        "With `--swap`, a judge puts another response first when it reads them in the other order.",
    ),
    "pick_failed": FailureCode(
        "degraded",
        "The judge that picks gave nothing: the best ranked, else the longest finished response is the answer.",
    ),
    "bad_pick": FailureCode("degraded", "The judge that picks named no response; the same stands in."),
    "partial_pick": FailureCode("degraded", "Some verdicts of `--pairwise` are missing; the others decided."),
    "pairwise_bounded": FailureCode("degraded", "Of more than 8 responses only the 8 best were compared."),
    "check_failed": FailureCode(
        "degraded",
        "No response passes `--check`: the best ranked, else the longest finished one is the answer.",
    ),
    "nothing_to_count": FailureCode("degraded", "Every response abstained from the vote: the best one is the answer."),
    "unknown_weight": FailureCode("degraded", "`--weight` names somebody who is not on the panel."),
    "not_weighed": FailureCode(
        "degraded",
        "`fuse-vote --weights logprob` or `--drop-lowest`: of some responses, or of all, nobody said how likely their "
        "tokens were, or no member has two to compare; they count as without.",
    ),
    "abstained": FailureCode("degraded", "`fuse-vote --threshold`: too few agree for the risk that is allowed."),
    "threshold_void": FailureCode(
        "degraded", "`fuse-vote --threshold`: fitted on another panel; nothing is answered until it is fitted anew."
    ),
    "route_failed": FailureCode(
        "degraded",
        "The router's call failed, and its rules decided; or its command failed, and the question is fused.",
    ),
    "bad_route": FailureCode("degraded", "The router's model named no route: the rules decided."),
    "no_solo_model": FailureCode("degraded", "One model would do, and none is named for it: the question is fused."),
    "kept_earlier": FailureCode("degraded", "A member failed in a later layer: its earlier response stays."),
    "layer_failed": FailureCode("degraded", "Nobody answered in a later layer: the panel before it stands."),
    "no_target": FailureCode("degraded", "`fuse-grade`: the task has nothing to hold texts against; it is not graded."),
    "bad_task": FailureCode("degraded", "`fuse-grade`: `meta` cannot be read as a task; it is not graded."),
    "bad_verdict": FailureCode("degraded, grade", "A grading judge's reply says neither yes nor no."),
    "fold_cut": FailureCode("degraded", "`--sequential` broke off: the fold lacks some of the responses."),
    "no_tools": FailureCode(
        "degraded", "Tools were asked for whom they cannot be given, or by a record, which turns none on."
    ),
    "unknown_source": FailureCode("degraded", "The answer cites an address that nobody on the panel looked up."),
    "compact_failed": FailureCode("degraded", "No summary of a long conversation came: all of it is sent."),
    "interrupted": FailureCode(
        "degraded", "A person has stopped the answer: what was shown of it is kept; `error` where nothing was."
    ),
}


class FusionError(Exception):
    """The root: carries a stable `code` for programs and a `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class UsageError(FusionError):
    """The command, the recipe or the environment asks for something that cannot be."""

    def __init__(self, message: str, code: str = "usage") -> None:
        super().__init__(code, message)


class InputError(FusionError):
    """One line of input cannot be used; `path` is the JSON path of the fault, where there is one."""

    def __init__(self, message: str, path: str = "", code: str = "bad_input") -> None:
        super().__init__(code, f"{path}: {message}" if path else message)
        self.path = path


class CallFailed(FusionError):
    """One attempt at an upstream gave nothing usable.

    Args:
        code: how it failed.
        message: the endpoint's own words where it had any.
        status: the HTTP status, where there was one.
        retryable: whether the same request may succeed a little later.
        retry_after_s: how long the endpoint asked us to wait.
        cost_usd: what the failed attempt cost, where the endpoint said so.
        param: the request parameter that the endpoint refused, where it named one.

    `adapted` is set by a backend that has learned from the refusal: the same request now goes out differently.
    """

    code: CallCode

    def __init__(
        self,
        code: CallCode,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
        usage: dict[str, int] | None = None,
        cost_usd: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.usage = usage
        self.cost_usd = cost_usd
        self.param = param
        self.adapted = False


class StageFailed(FusionError):
    """A stage has no result for this record."""

    code: StageCode

    def __init__(self, code: StageCode, message: str) -> None:
        super().__init__(code, message)


def nearest(word: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest known word, else the list of the known ones."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def install_line(extra: str) -> str:
    """Return the command that adds one of our extras to this installation, however it was made."""
    import shlex
    import sys
    from importlib.metadata import PackageNotFoundError, distribution
    from importlib.util import find_spec

    try:
        wanted = _requirement(distribution("fusiontools").read_text("direct_url.json"), extra)
    except PackageNotFoundError:
        wanted = [f"fusiontools[{extra}]"]
    if "pipx" in sys.prefix:
        command = ["pipx", "install", "--force"]
    elif "/uv/tools/" in sys.prefix:
        command = ["uv", "tool", "install", "--force"]
    elif find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install"]
    else:
        command = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*command, *wanted])


def _requirement(origin: str | None, extra: str) -> list[str]:
    """Return what to install, from what the installer wrote down of where it took us from (PEP 610)."""
    import json
    from urllib.parse import unquote, urlsplit

    if origin is None:
        return [f"fusiontools[{extra}]"]
    source = json.loads(origin)
    if "dir_info" not in source:
        return [f"fusiontools[{extra}] @ {source['url']}"]
    folder = unquote(urlsplit(source["url"]).path)
    return [*(["-e"] if source["dir_info"].get("editable") else []), f"{folder}[{extra}]"]
