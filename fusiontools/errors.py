"""Every failure that a user can meet: its code, its words, and the exit status it leads to.

FusionError
├── UsageError          the command line, the recipe or the environment is wrong: exit 2
├── InputError          one input line or record is wrong: reported with its place, the rest goes on
├── CallFailed          a model was asked and gave nothing usable; retried, then data in the record
└── StageFailed         a stage could not do its part; degrades, or becomes the record's `error`

Every `message` is for a person: what failed, why, and what to do where something can be done.
"""

from __future__ import annotations

__version__ = "0.1.0"

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING_USABLE = 3
EXIT_BUDGET = 4
EXIT_CONDITION = 5
EXIT_INTERRUPTED = 130


#: What each exit status means.
EXITS: dict[int, str] = {
    EXIT_OK: "no record failed; a closed pipe is no error",
    EXIT_SOME_FAILED: "some records failed or could not be read; the others went on",
    EXIT_USAGE: "the command line, the recipe or the environment is wrong",
    EXIT_NOTHING_USABLE: "nothing usable came in or went out",
    EXIT_BUDGET: "stopped by `--max-cost-usd`",
    EXIT_CONDITION: "a `--fail-…` condition of `fuse-report` holds",
    EXIT_INTERRUPTED: "interrupted (143: terminated)",
}

#: Every code that a record can hold: where it stands, and what it means. Programs may rely on the codes.
CODES: dict[str, tuple[str, str]] = {
    "ok": ("call", "It went well."),
    "timeout": ("call", "No answer within `--timeout`, or HTTP 408. Retried where the endpoint said 408."),
    "deadline": ("call", "The record's `--deadline` was over."),
    "rate_limited": ("call", "HTTP 429. Retried."),
    "upstream": ("call", "HTTP 5xx, or an error inside a 200. Retried."),
    "connect": ("call", "The endpoint cannot be reached. Retried."),
    "connection": ("call", "The connection broke, or the stream ended early. Retried unless text was shown already."),
    "auth": ("call", "HTTP 401 or 403: the key is wrong or not allowed."),
    "payment": ("call", "HTTP 402: no credit."),
    "not_found": ("call", "HTTP 404: no such model or URL."),
    "bad_request": ("call", "The endpoint refuses the request, in its own words."),
    "context_length": ("call", "The prompt is longer than the model's context."),
    "bad_response": ("call", "The endpoint did not answer a chat completion. Retried where it was no JSON at all."),
    "empty": ("call", "The model answered nothing."),
    "refused": ("call", "The model, or the endpoint's filter, refused."),
    "truncated": ("call", "`max_tokens` were used up before anything visible came."),
    "engine": ("call", "The embedded engine failed."),
    "offline_miss": ("call", "`--offline`, and the journal does not hold it."),
    "cut": ("call", "Not in when the grace after `--quorum` was over."),
    "cancelled": ("call", "Given up while it ran; in `calls` only."),
    "price_unknown": ("call", "A cost limit is set and nobody knows this model's price."),
    "budget": ("call, error", "`--max-cost-usd` would have been passed."),
    "record_budget": (
        "call",
        "`--max-record-cost-usd`, or what a request to a server may cost, would have been passed.",
    ),
    "caller_budget": ("call", "What a server's caller may spend in a day would have been passed."),
    "all_failed": ("error", "No member gave anything usable."),
    "member_failed": ("degraded", "A member failed; `detail` says which and why."),
    "one_survivor": ("degraded", "One response came of several: nothing to compare, and it is the answer."),
    "judge_failed": ("degraded", "A judge gave nothing."),
    "no_judge": (
        "degraded",
        "No judge is named by `-m` or a recipe: code compared the responses, or the best was picked without asking.",
    ),
    "no_synth": ("degraded", "No synthesizer is named by `-m` or a recipe: the best response is the answer."),
    "unknown_endpoint": (
        "call",
        "The record names an endpoint that only another recipe defines; give that one with `-c`.",
    ),
    "partial_analysis": ("degraded", "A judge's reply has no ranking; it may have been cut off by `--max-tokens`."),
    "bad_analysis": ("degraded", "A judge's reply could not be read."),
    "judge_on_panel": ("degraded", "A judge also sits on the panel; models prefer their own words."),
    "synth_failed": ("degraded", "The synthesizer gave nothing: a panel response stands in."),
    "refine_failed": ("degraded", "The revision of `--refine` failed: the answer stays as it was."),
    "guard_failed": ("degraded", "The judge of `--guard` gave no verdict: the written answer stays."),
    "no_ranking": ("degraded", "`--top` without a judge's ranking: the longest finished responses are fused."),
    "order_sensitive": (
        "degraded",
        "With `--swap`, a judge puts another response first when it reads them in the other order.",
    ),
    "pick_failed": (
        "degraded",
        "The judge that picks gave nothing: the best ranked, else the longest finished response is the answer.",
    ),
    "bad_pick": ("degraded", "The judge that picks named no response; the same stands in."),
    "partial_pick": ("degraded", "Some verdicts of `--pairwise` are missing; the others decided."),
    "pairwise_bounded": ("degraded", "Of more than 8 responses only the 8 best were compared."),
    "nothing_to_count": ("degraded", "Every response abstained from the vote: the best one is the answer."),
    "unknown_weight": ("degraded", "`--weight` names somebody who is not on the panel."),
    "route_failed": (
        "degraded",
        "The router's call failed, and its rules decided; or its command failed, and the question is fused.",
    ),
    "bad_route": ("degraded", "The router's model named no route: the rules decided."),
    "no_solo_model": ("degraded", "One model would do, and none is named for it: the question is fused."),
    "kept_earlier": ("degraded", "A member failed in a later layer: its earlier response stays."),
    "layer_failed": ("degraded", "Nobody answered in a later layer: the panel before it stands."),
    "no_target": ("degraded", "`fuse-grade`: the task has nothing to hold texts against; it is not graded."),
    "bad_task": ("degraded", "`fuse-grade`: `meta` cannot be read as a task; it is not graded."),
    "bad_verdict": ("degraded, grade", "A grading judge's reply says neither yes nor no."),
    "no_sandbox": ("exit 2", "`fuse-grade`: programs are to be run, and nothing can shut them in."),
    "fold_cut": ("degraded", "`--sequential` broke off: the fold lacks some of the responses."),
}

#: What `fuse-serve` refuses with: HTTP status, code, and when. Where the models failed the code is one of `CODES`.
API_CODES: tuple[tuple[int, str, str], ...] = (
    (400, "invalid_json", "The body is not JSON."),
    (400, "invalid_request", "Something in it cannot be; `param` says where."),
    (400, "unsupported_parameter", "A parameter that cannot be honoured."),
    (400, "unsupported", "The same, in the Responses API: what needs answers that were stored."),
    (400, "invalid_override", "A `fusion` key that cannot be."),
    (400, "override_not_allowed", "A `fusion` key or a model in it that may not be said here."),
    (400, "too_many_calls", "More than `--max-calls`."),
    (400, "too_many_messages", "More than `--max-messages`."),
    (400, "fusion_loop", "The request came through a fusion server already (`--max-depth`)."),
    (400, "context_length", "Every member says that the prompt is too long."),
    (400, "client_left", "The client left in the middle of its request."),
    (401, "invalid_api_key", "No key, or a wrong one."),
    (402, "budget", "A cost limit would be passed."),
    (402, "caller_budget", "The key has spent its day's money."),
    (402, "price_unknown", "A cost limit holds, and nobody knows a model's price."),
    (403, "host_not_allowed", "The server is not called so (`--allow-host`)."),
    (403, "origin_not_allowed", "A web page that may not ask (`--allow-origin`)."),
    (404, "model_not_found", "No such model or recipe; the message lists what there is."),
    (404, "not_found", "No such page."),
    (408, "request_timeout", "The request did not come in within `--read-timeout`."),
    (413, "request_too_large", "Larger than `--max-body-mib`."),
    (415, "unsupported_media_type", "Not `application/json`."),
    (424, "no_answer", "The chain made no answer; 400 in Chat Completions."),
    (424, "broken_off", "In a stream: the model broke off, and another response stands in."),
    (429, "rate_limit_exceeded", "Too many requests, with `Retry-After`."),
    (500, "internal_error", "A bug of ours."),
    (502, "upstream_auth", "The endpoint does not accept the server's key or account."),
    (503, "server_overloaded", "The queue is full, with `Retry-After`."),
)


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
        code: one of `CODES` (`timeout`, `rate_limited`, `empty`, …).
        message: the endpoint's own words where it had any.
        status: the HTTP status, where there was one.
        retryable: whether the same request may succeed a little later.
        retry_after_s: how long the endpoint asked us to wait.
        cost_usd: what the failed attempt cost, where the endpoint said so.
        param: the request parameter that the endpoint refused, where it named one.

    `adapted` is set by a backend that has learned from the refusal: the same request now goes out differently.
    """

    def __init__(
        self,
        code: str,
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


def nearest(word: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest known word, else the list of the known ones."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
