"""Why an answer ended, in OpenAI's words, whichever provider's word came.

What nobody here knows is `length`: an answer that may have been cut must not pass for a whole one.

Source: the API references of OpenAI, Anthropic, Google, Cohere, Mistral, Amazon Bedrock, DeepSeek, Z.ai, IBM watsonx,
OpenRouter and LM Studio; Hugging Face TGI, vLLM, SGLang, llama.cpp and Ollama, from their sources.
"""

from __future__ import annotations

import re
from typing import Any

#: Every known word, lower case, letters only. `refusal` and `error` are no ends of an answer: the reader fails on them.
_WORDS: dict[str, tuple[str, ...]] = {
    "stop": (
        "stop",
        "stopsequence",
        "stopstring",
        "stopstringfound",
        "endturn",
        "endofturn",
        "eos",
        "eostoken",
        "eosfound",
        "complete",
        "completed",
        "done",
        "word",
    ),
    "length": (
        "length",
        "maxtokens",
        "maxoutputtokens",
        "maxlength",
        "maxcompletiontokens",
        "modellength",
        "tokenlimit",
        "limit",
        "pauseturn",
        "modelcontextwindowexceeded",
        "contextlengthreached",
        "contextlengthexceeded",
        "maxpredictedtokensreached",
    ),
    "tool_calls": ("toolcalls", "toolcall", "tooluse", "functioncall", "functioncalls"),
    "content_filter": (
        "contentfilter",
        "contentfiltered",
        "safety",
        "recitation",
        "blocklist",
        "prohibitedcontent",
        "spii",
        "sensitive",
        "errortoxic",
        "guardrailintervened",
        "moderation",
        "language",
    ),
    "refusal": ("refusal",),
    "error": ("error", "failed"),
}
_KNOWN = {word: reason for reason, words in _WORDS.items() for word in words}
#: Words that mean that the end has not come yet.
_NO_REASON = ("", "null", "none", "unspecified")
#: What is said of the kind where the word itself is new.
_OF_FILTERS = re.compile("filter|safety|sensitive|prohibited|blocked|moderat|policy|guardrail")


def read_finish_reason(said: Any, unknown: str = "length") -> str | None:
    """Return `stop`, `length`, `tool_calls`, `content_filter`, `refusal` or `error`; None where no end is said.

    Args:
        unknown: what a word is that nobody here knows.
    """
    if isinstance(said, dict):
        said = said.get("type") or said.get("reason")
    if said is None:
        return None
    if not isinstance(said, str):
        return unknown
    # Google's compatible endpoint appends its own word: `content_filter: SAFETY`.
    kind, _, _ = said.partition(":")
    word = re.sub("[^a-z]", "", kind.lower()).removeprefix("finishreason")
    if word in _NO_REASON:
        return None
    if word not in _KNOWN and _OF_FILTERS.search(word) and "function" not in word:
        return "content_filter"
    return _KNOWN.get(word, unknown)
