"""The parameters of a request, and what becomes of each: one table, for the shell and the server.

A member drafts, the answer is what the person sees. So whatever shapes the visible answer goes to who writes it: the
synthesizer, or the one model that answers alone. Members get what their drafts must know as well: the tools, and the
form, for a draft may have to stand in for the answer. A judge gets none, for its reply has a form of its own; it reads
the tools in its prompt. What goes straight to a member by its own name goes there as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: For members and for the answer; for the answer alone; for the server; for nobody; and what is refused.
BOTH, WRITER, SERVER, NOBODY, REFUSED = "members and answer", "answer", "server", "nobody", "refused"
#: By OpenAI's name. What is not named here goes to nobody.
POLICY: dict[str, str] = {
    "tools": BOTH,
    "tool_choice": BOTH,
    "parallel_tool_calls": BOTH,
    "response_format": BOTH,
    "max_tokens": WRITER,
    "max_completion_tokens": WRITER,
    "temperature": WRITER,
    "top_p": WRITER,
    "top_k": WRITER,
    "stop": WRITER,
    "seed": WRITER,
    "presence_penalty": WRITER,
    "frequency_penalty": WRITER,
    "reasoning_effort": WRITER,
    "reasoning": WRITER,
    "verbosity": WRITER,
    "model": SERVER,
    "messages": SERVER,
    "stream": SERVER,
    "stream_options": SERVER,
    "fusion": SERVER,
    "plugins": SERVER,
    "n": REFUSED,
    "modalities": REFUSED,
    "audio": REFUSED,
    "functions": REFUSED,
    "function_call": REFUSED,
    "logprobs": NOBODY,
    "top_logprobs": NOBODY,
    "logit_bias": NOBODY,
    "prediction": NOBODY,
    "web_search_options": NOBODY,
    "user": NOBODY,
    "safety_identifier": NOBODY,
    "prompt_cache_key": NOBODY,
    "metadata": NOBODY,
    "store": NOBODY,
    "service_tier": NOBODY,
}
#: Why a parameter is refused, where it is said with a value that asks for something.
REFUSALS = {
    "n": "one answer is fused from many responses; ask again for another one",
    "modalities": "only text is answered",
    "audio": "only text is answered",
    "functions": "say `tools` instead",
    "function_call": "say `tool_choice` instead",
}
#: What a request is made of beside its parameters; in a record they are no `params`.
STRUCTURE = ("messages", "fusion", "plugins")
#: What stands at the top of a chat request, and in the `params` of a record.
PARAMETERS = frozenset(POLICY) - frozenset(STRUCTURE)
#: Spellings of the same thing, which a record knows under one name.
SYNONYMS = ("max_completion_tokens", "reasoning")
#: Parameters of a panel member.
MEMBER = tuple(name for name, whose in POLICY.items() if whose == BOTH)
#: Parameters of whoever writes the visible answer.
ANSWER = tuple(name for name, whose in POLICY.items() if whose in (BOTH, WRITER) and name not in SYNONYMS)


def find_refused(said: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first parameter that cannot be honoured, and why; None where all can."""
    if REFUSALS.keys().isdisjoint(said):
        return None
    for name, why in REFUSALS.items():
        value = said.get(name)
        harmless = value in (None, 1, [], ["text"], {}) and value is not True
        if name == "function_call" and value in ("none", "auto") and "functions" not in said:
            harmless = True
        if not harmless:
            return name, f"`{name}` is not supported: {why}"
    return None


def with_one_name(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, each synonym under the name that a record knows."""
    params = {name: value for name, value in said.items() if name != "max_completion_tokens"}
    if said.get("max_completion_tokens") is not None:
        params["max_tokens"] = said["max_completion_tokens"]
    reasoning = said.get("reasoning")
    if isinstance(reasoning, Mapping) and reasoning.get("effort") is not None:
        params.setdefault("reasoning_effort", reasoning["effort"])
    return params


def select_params(params: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return what the asker said of these parameters; null says nothing."""
    return {name: params[name] for name in names if params.get(name) is not None}
