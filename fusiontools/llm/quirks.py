"""What an endpoint turned out not to understand, and how to say it so that it does.

Nothing is known beforehand: a refusal teaches one lesson, the same request goes out again as it is understood, and the
lesson holds for that endpoint and model as long as the process lives. What a client sends to a member by its own name
is adapted in the same way, but for the form of the answer, which nobody would check there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from fusiontools.answers.patterns import compile_later
from fusiontools.llm import answer_form, rewrite
from fusiontools.llm.token_limit import TokenLimit
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.errors import CallFailed
    from fusiontools.llm.completion import CompletionRequest
    from fusiontools.record.types import Message

#: Parameters that may be left out when an endpoint refuses them; the answer changes little, the call goes through.
_NAMED_PLAINLY = (
    *("temperature", "top_p", "top_k", "min_p", "top_logprobs", "logprobs", "logit_bias", "verbosity"),
    *("presence_penalty", "frequency_penalty", "repeat_penalty", "repetition_penalty", "reasoning_effort"),
    *(
        "enable_thinking",
        "parallel_tool_calls",
        "stream_options",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
    ),
)
#: The same, whose names are words that may stand in a refusal by chance: these must be quoted.
_NAMED_BY_WORDS = ("seed", "stop", "store", "user", "metadata", "reasoning", "prediction")
#: Other names for some of them.
_ALSO_CALLED = {
    "reasoning_effort": r"reasoning[ .]effort|\bthink(ing)?\b|\breasoning\b",
    "reasoning": r"reasoning[ .]effort|does not support (thinking|reasoning)|think value|reasoning is (not|mandatory)",
    "presence_penalty": r"\bpenalt(y|ies)\b",
    "frequency_penalty": r"\bpenalt(y|ies)\b",
}
_DROPPABLE = {
    name: compile_later("|".join([pattern, *([_ALSO_CALLED[name]] if name in _ALSO_CALLED else [])]))
    for name, pattern in (
        *((name, rf"\b{name}\b") for name in _NAMED_PLAINLY),
        *((name, rf"[\"'`]{name}[\"'`]|\b(supplied|parameter|argument|field):? {name}\b") for name in _NAMED_BY_WORDS),
    )
}
#: After so many lessons for one request, an endpoint that still refuses is believed.
MOST_LESSONS = 16
#: Of other objects the empty one may mean something: `web_search_options: {}` is a search.
_EMPTY_IS_NOTHING = ("logit_bias", "metadata", "response_format", "tool_choice")
_TOKEN_NAMES = ("max_tokens", "max_completion_tokens")

#: How strict endpoints and chat templates say that there may be one system message only, and only as the first.
_OF_THE_FIRST = (
    "system message must be at the beginning",
    "'system' message can only appear at index 0",
    "unexpected role 'system' after",
    "incorrect role system",
    "only one system",
)
#: How they say that the user and the assistant must take turns; what rules them may stand before that only.
_OF_TURNS = ("roles must alternate", "roles should be alternating")
#: How a chat template refuses a role that it has never heard of: without its name.
_OF_A_ROLE = "unexpected message role"
#: How they say that the assistant may not have the last word.
_OF_THE_LAST = (
    "prefill",
    "must end with a user message",
    "expected last role user",
    "last message is from the assistant",
    "last message of deepseek-reasoner must be a user",
    "last message must be a user",
    "last message must have role user",
    "last message role must be 'user'",
)
_OF_TEMPLATES = (*_OF_THE_FIRST, *_OF_TURNS, _OF_A_ROLE, 'can only concatenate str (not "list")')
#: How a refusal speaks of a form of the answer; and of one schema among those that the endpoint may take.
_OF_FORMAT = compile_later(
    r"response[_ ]?format|json[_ ]schema|json[_ ]object|json mode|structured output|response[_ ]schema"
    r"|response[_ ]mime[_ ]type|guided[_ ](json|decoding)|(parse|compile|invalid) grammar|the word 'json'"
)
_OF_ONE_SCHEMA = compile_later(r"invalid schema|invalid_json_schema|schema is too|unsupported schema|grammar")
#: How they say that content must be one text and no list of parts.
_OF_PARTS = compile_later(
    r"invalid type: sequence, expected a string|(must|should) be (of type |a |an )?(valid )?string\b"
    r"|can only concatenate str \(not \"list\"\)|\bexpected a string\b|\bexpected string\b|str type expected"
    r"|only (supports |accepts )?(plain |string )?text content|content (parts|arrays?|lists?) (is|are) not supported"
)
#: How they refuse the name of a tool.
_OF_A_TOOLS_NAME = compile_later(
    r"name\b.{0,200}(pattern|too long|maximum length|max length|at most \d+|alphanumeric|characters?\b|must match|a-z)"
    r"|invalid (function|tool)[ _]name",
    re.DOTALL,
)
#: How they refuse OpenRouter's thoughts in a history, and those of another model.
_OF_DETAILS = compile_later(
    r"reasoning_details|(invalid|unknown|corrupted|expired)\b.{0,20}\bsignature|encrypted_?content"
)
#: How they refuse the signature beside a call, of another model's or an old one; and how they miss one.
_OF_SIGNATURES = compile_later(r"extra_content|provider_specific_fields|thought[ _]?signature")
_OF_MISSING_SIGNATURES = compile_later(r"missing\b.{0,40}thought[ _]?signature")
#: How they refuse the name of who speaks, and content that is null beside calls.
_OF_NAMES = compile_later(
    r"\bname\b.{0,40}(unsupported|not (supported|permitted|allowed))|messages\[?\.?\d+\]?\.name\b"
    r"|(unsupported|unexpected|unrecognized|unknown|extra)\b.{0,60}\bname\b"
)
_OF_NULL_CONTENT = compile_later(r"content\b.{0,60}\b(null|none|nonetype)\b|\b(null|none)\b.{0,60}\bcontent\b")
#: Models whose endpoints take no effort of thinking, but a switch.
_HAS_A_SWITCH = compile_later("qwen|qwq", re.IGNORECASE)
#: How such an endpoint says that it thinks in streams only.
_OF_STREAMED_THOUGHTS = compile_later(r"enable_thinking\b.{0,40}\bfalse\b.{0,20}\bnon-stream")
_REFUSALS = (400, 404, 413, 415, 422, 501)
#: Failures after which the same request fails in every form.
_TEACH_NOTHING = ("auth", "payment", "rate_limited", "refused")
#: What no parameter may say: it is the request itself, or how many answers are paid for.
_OURS = frozenset({"model", "messages", "stream", "n"})


class Quirks(Struct):
    """What one endpoint's model needs differently.

    A `response_format` goes down a ladder: as asked, `json_object` with the schema in words, in words alone.

    Args:
        marks_cache: the prefix that requests share is marked, for an endpoint that keeps it.
        system_anywhere: system messages stand where they are; else all of them are the first message.
        same_role_twice: messages of one role may follow each other; else those of the user are one.
        continues: the assistant may have the last word, and goes on with it.
        parts: content may be a list of nothing but text.
        thinks_unstreamed: the model may think, too, where its answer does not come as a stream.
        takes_details: messages may have `reasoning_details`.
        takes_thoughts: messages may have `reasoning_content`.
        takes_signatures: calls may have beside them what their model signed.
        wants_signatures: each turn's first call must have it; Google names what stands for one that nobody has.
        takes_names: messages may say who speaks.
        takes_null: content may be null beside calls.
        takes_strict: tools may be `strict`.
        own_names: tools have the names that the client gave them, however long or strange.
        refused_formats: types of `response_format`, and schemas by their JSON.
        says_json: a form is asked for in words, too.
        learned: whether any of this is otherwise than by default, or a refusal has taught anything else: most endpoints
            understand what they are asked, and then nothing of it is looked at.
    """

    marks_cache: bool = False
    max_tokens_name: str | None = None
    developer_role: bool = True
    system_anywhere: bool = True
    same_role_twice: bool = True
    continues: bool = True
    parts: bool = True
    thinks_unstreamed: bool = True
    takes_details: bool = True
    takes_signatures: bool = True
    wants_signatures: bool = False
    takes_names: bool = True
    takes_null: bool = True
    takes_strict: bool = True
    takes_thoughts: bool = True
    own_names: bool = True
    says_json: bool = False
    limit: TokenLimit = field(default_factory=TokenLimit)
    refused_formats: set[str] = set()
    dropped: set[str] = set()
    learned: bool = False

    def body(self, request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
        """Return the JSON body of the request as this endpoint wants it."""
        asked: dict[str, Any] = {"model": request.model, "messages": request.messages}
        params = request.params
        asked |= params if _OURS.isdisjoint(params) else {name: params[name] for name in params if name not in _OURS}
        if request.logprobs:
            asked.setdefault("logprobs", True)
        instruction = None
        if isinstance(form := asked.get("response_format"), dict) and form:
            asked["response_format"], in_words = self._format(form)
            instruction = answer_form.words_for(form) if in_words else None
        if stream:
            asked["stream"] = True
            asked["stream_options"] = {"include_usage": True}
        return self._adapt(asked, instruction, request.cached_messages)

    def adapt(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return a client's own body as this endpoint wants it; the form of the answer stays as it was asked for."""
        return self._adapt(asked, None, 0)

    def learn(self, failure: CallFailed, request: CompletionRequest, body: dict[str, Any]) -> bool:
        """Take the lesson of a refusal; returns whether the request would now go out differently.

        Another call under way may have learned it already: then there is nothing new in it. Nothing is ever unlearned,
        so an endpoint that refuses everything is soon believed.
        """
        if not _teaches(failure):
            return False
        stream = "stream" in body
        if self.body(request, stream=stream) == body:
            size = prompt_bytes(request.messages, request.params)
            self._take_lesson(failure, body, request.params.get("response_format"), size)
        return self.body(request, stream=stream) != body

    def learn_from(self, failure: CallFailed, asked: Mapping[str, Any], sent: dict[str, Any]) -> bool:
        """Take the lesson of a client's own body that was refused, as `learn` does."""
        if not _teaches(failure):
            return False
        if self.adapt(asked) == sent:
            self._take_lesson(failure, sent, None, prompt_bytes(asked["messages"], asked))
        return self.adapt(asked) != sent

    def own_tool_names(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Return the client's own name of each tool that goes out under a short one."""
        if self.own_names or not params.get("tools"):
            return {}
        return {short: own for own, short in rewrite.short_names(params["tools"]).items()}

    def form_in_words(self, request: CompletionRequest) -> Mapping[str, Any] | None:
        """Return the `response_format` that is asked for in words, where one is: its answer must be checked."""
        form = request.params.get("response_format")
        return form if isinstance(form, dict) and form and self._format(form)[1] else None

    def _adapt(self, asked: Mapping[str, Any], instruction: str | None, shared: int) -> dict[str, Any]:
        if self.learned:
            return self._adapt_as_learned(asked, instruction, shared)
        body = dict(asked)
        if not all(asked.values()):
            body = {name: value for name, value in asked.items() if value or not _says_nothing(name, value)}
        body["messages"] = self._messages(asked["messages"], instruction, shared)
        _leave_out_choice(body, asked)
        return body

    def _adapt_as_learned(self, asked: Mapping[str, Any], instruction: str | None, shared: int) -> dict[str, Any]:
        if not self.own_names and (names := rewrite.short_names(asked.get("tools"))):
            asked = rewrite.rename_tools(asked, names)
        body: dict[str, Any] = {}
        for name, value in asked.items():
            if name == "messages":
                body[name] = self._messages(value, instruction, shared)
            elif name in _TOKEN_NAMES and isinstance(value, int):
                body[self.max_tokens_name or name] = self._bounded(value, asked)
            elif name not in self.dropped and (value or not _says_nothing(name, value)):
                body[name] = value
        if not self.takes_strict and body.get("tools"):
            body["tools"] = rewrite.without_strict(body["tools"])
        _leave_out_choice(body, asked)
        if (self.dropped or not self.thinks_unstreamed) and (thinks := self._switch_of(asked)) is not None:
            body["enable_thinking"] = thinks
        return body

    def _switch_of(self, asked: Mapping[str, Any]) -> bool | None:
        """Return whether the model is told to think, or not to; None where nothing is said of it here."""
        if "enable_thinking" in self.dropped:
            return None
        if not (self.thinks_unstreamed or asked.get("stream")):
            return False
        effort = asked.get("reasoning_effort")
        is_switched = "reasoning_effort" in self.dropped and _HAS_A_SWITCH.search(str(asked.get("model")))
        return effort != "none" if effort and is_switched and "enable_thinking" not in asked else None

    def _bounded(self, tokens: int, asked: Mapping[str, Any]) -> int:
        limit = self.limit
        if limit.window is None:
            return tokens if limit.most is None else limit.bound(tokens, 0)
        return limit.bound(tokens, prompt_bytes(asked["messages"], asked))

    def _take_lesson(self, failure: CallFailed, body: dict[str, Any], form: Any, size: int) -> None:
        """Take the lesson of a refusal of this body.

        Args:
            form: the `response_format` that was asked for, where another may stand in for it.
            size: the bytes of the prompt.
        """
        self.learned = True
        said = _in_lower_case(failure)
        tokens = next((body[name] for name in _TOKEN_NAMES if isinstance(body.get(name), int)), None)
        if (tokens is not None and self.limit.learn(said, tokens, size)) or failure.code == "context_length":
            return
        if self.thinks_unstreamed and "stream" not in body and _OF_STREAMED_THOUGHTS.search(said):
            self.thinks_unstreamed = False
        elif form and "response_format" in body and _OF_FORMAT.search(said):
            self._refuse_format(said, body["response_format"].get("type"), form)
        elif self._take_lesson_on_tokens(said, body) or self._take_lesson_on_messages(said, body):
            return
        elif self.takes_strict and "strict" in said and any(map(rewrite.is_strict, body.get("tools") or [])):
            self.takes_strict = False
        elif _OF_A_TOOLS_NAME.search(said) and rewrite.short_names(body.get("tools")):
            self.own_names = False
        elif refused := _named_first(said, body):
            self.dropped.add(refused)

    def _take_lesson_on_tokens(self, said: str, body: Mapping[str, Any]) -> bool:
        """Learn what the most tokens are called here; returns whether that is the lesson."""
        for name, other in (_TOKEN_NAMES, _TOKEN_NAMES[::-1]):
            named = other in said or (name == "max_completion_tokens" and name in said)
            if name in body and self.max_tokens_name is None and named:
                self.max_tokens_name = other
                return True
        return False

    def _take_lesson_on_messages(self, said: str, body: Mapping[str, Any]) -> bool:
        """Learn what the endpoint wants of the messages; returns whether that is the lesson."""
        messages = body["messages"]
        if "developer" in said and any(m.get("role") == "developer" for m in messages):
            self.developer_role = False
        elif "cache_control" in said and self.marks_cache:
            self.marks_cache = False
        elif _OF_A_ROLE in said:
            self.developer_role = False
        elif self.takes_details and _OF_DETAILS.search(said) and any("reasoning_details" in m for m in messages):
            self.takes_details = False
        elif self.takes_thoughts and "reasoning_content" in said and any("reasoning_content" in m for m in messages):
            self.takes_thoughts = False
        elif _OF_MISSING_SIGNATURES.search(said):
            self.wants_signatures = True
        elif self.takes_signatures and _OF_SIGNATURES.search(said) and any(map(rewrite.is_signed, messages)):
            self.takes_signatures = False
        elif self.takes_null and _OF_NULL_CONTENT.search(said) and any(m.get("content") is None for m in messages):
            self.takes_null = False
        elif self.takes_names and _OF_NAMES.search(said) and any("name" in m for m in messages):
            self.takes_names = False
        elif any(words in said for words in _OF_THE_LAST) and messages[-1].get("role") == "assistant":
            self.continues = False
        elif any(words in said for words in _OF_THE_FIRST):
            self.system_anywhere = False
        elif any(words in said for words in _OF_TURNS):
            self.system_anywhere = self.same_role_twice = False
        elif self.parts and _OF_PARTS.search(said) and any(map(rewrite.is_text_in_parts, messages)):
            self.parts = self.marks_cache = False
        else:
            return False
        return True

    def _refuse_format(self, said: str, kind: Any, asked: Mapping[str, Any]) -> None:
        if "the word 'json'" in said and not self.says_json:
            self.says_json = True
        elif kind == "json_schema" and _OF_ONE_SCHEMA.search(said):
            # What is wrong with one schema is no reason to put all others in words.
            self.refused_formats.add(_as_text(asked))
        else:
            self.refused_formats.add(str(kind))

    def _refuses_schema(self, asked: Mapping[str, Any]) -> bool:
        return bool(self.refused_formats) and not self.refused_formats.isdisjoint(("json_schema", _as_text(asked)))

    def _format(self, asked: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
        """Return the form as this endpoint may be asked for it, and whether it is asked for in words as well."""
        kind = str(asked.get("type"))
        if kind == "json_schema" and not self._refuses_schema(asked):
            return asked, False
        if kind not in ("json_schema", "json_object"):
            return (None if kind in self.refused_formats else asked), False
        lowered = kind == "json_schema" or self.says_json
        if "json_object" in self.refused_formats:
            return None, True
        return ({"type": "json_object"} if lowered else asked), lowered

    def _messages(self, given: Any, instruction: str | None, shared: int) -> list[Message]:
        messages = given if all(map(_is_plain, given)) else rewrite.without_nothings(given)
        if self.learned:
            messages = self._without_refused(messages)
        if instruction is not None:
            messages, more = rewrite.with_instruction(messages, instruction)
            shared += more if shared else 0
        if self.marks_cache and shared:
            messages = rewrite.mark_prefix(messages, shared)
        return self._in_order(messages) if self.learned else list(messages)

    def _without_refused(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages without what may not be in any of them."""
        if not self.takes_details:
            messages = rewrite.without_key(messages, "reasoning_details")
        if not self.takes_thoughts:
            messages = rewrite.without_key(messages, "reasoning_content")
        if not self.takes_names:
            messages = rewrite.without_key(messages, "name")
        if not self.takes_null:
            messages = rewrite.without_null_content(messages)
        if not self.takes_signatures or self.wants_signatures:
            messages = rewrite.with_signatures(messages, given=self.takes_signatures, wanted=self.wants_signatures)
        return messages if self.parts else rewrite.with_plain_text(messages)

    def _in_order(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages with the roles that there may be, in the order that they may have."""
        if not self.system_anywhere:
            messages = rewrite.with_system_first(messages)
        elif not self.developer_role and any(m.get("role") == "developer" for m in messages):
            said_by_system: Any = [{**m, "role": "system"} if m.get("role") == "developer" else m for m in messages]
            messages = rewrite.merge_system(said_by_system)
        if not self.continues:
            messages = rewrite.with_user_last(messages)
        return list(messages) if self.same_role_twice else rewrite.with_user_joined(messages)


def _leave_out_choice(body: dict[str, Any], asked: Mapping[str, Any]) -> None:
    """Leave out what is said of tools where there are none."""
    if "tools" not in body and "tools" in asked:
        body.pop("tool_choice", None)
        body.pop("parallel_tool_calls", None)


def _is_plain(message: Message) -> bool:
    """Return whether a message is a role and a text, as most are: nothing in it is to be left out."""
    return len(message) == 2 and isinstance(message.get("content"), str) and isinstance(message.get("role"), str)


def prompt_bytes(messages: Any, params: Mapping[str, Any]) -> int:
    """Return how long a prompt is, its tools included."""
    return len(jsonl.dumps([messages, params.get("tools")]))


def _teaches(failure: CallFailed) -> bool:
    """Return whether this is a refusal that may have a lesson in it."""
    if failure.code in _TEACH_NOTHING:
        # OpenAI forbids them for its reasoning models, as if the key were not allowed to.
        return failure.status == 403 and "logprobs" in failure.message.lower()
    return failure.status in _REFUSALS or _is_of_a_template(failure)


def _is_of_a_template(failure: CallFailed) -> bool:
    """Return whether this is the refusal of a chat template, which llama.cpp and Ollama call a failure of their own."""
    said = failure.message.lower()
    return failure.status == 500 and (any(words in said for words in _OF_TEMPLATES) or "thinking" in said)


def _in_lower_case(failure: CallFailed) -> str:
    """Return what the endpoint says, `presencePenalty` spelled as `presence_penalty`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", f"{failure.param or ''} {failure.message}").lower()


def _says_nothing(name: str, value: Any) -> bool:
    """Return whether this means what its absence means, and is refused by strict endpoints."""
    return value is None or value == [] or (value == {} and name in _EMPTY_IS_NOTHING)


def _as_text(form: Mapping[str, Any]) -> str:
    return jsonl.dumps(form).decode()


def _named_first(said: str, body: Mapping[str, Any]) -> str | None:
    """Return the parameter that a refusal names before all others: those behind it may be what is allowed."""
    found = [
        (match.start(), name) for name, words in _DROPPABLE.items() if name in body and (match := words.search(said))
    ]
    return min(found)[1] if found else None
