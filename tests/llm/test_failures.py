"""Every failure has its right name, in whatever words, codes and HTTP status a provider puts it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.errors import CallCode, CallFailed
from fusiontools.llm.failures import WORDINGS, read_failure, wait_asked_for
from fusiontools.llm.reply_reader import read_completion


def said(message: str, status: int = 400, **more: Any) -> tuple[int, Any]:
    return status, {"error": {"message": message, **more}}


CODES = frozenset(get_args(CallCode))
TOO_LONG: dict[str, tuple[int, Any]] = {
    "GPT-4o": said("This model's maximum context length is 128000 tokens. However, your messages resulted in 130000"),
    "GPT-5": said("Input tokens exceed the configured limit of 272000 tokens.", code="context_length_exceeded"),
    "GPT-5, words only": said("Input tokens exceed the configured limit of 272000 tokens."),
    "Responses": said("Your input exceeds the context window of this model. Please adjust your input and try again."),
    "a code and no words": said("no", code="context_length_exceeded"),
    "Anthropic": said("prompt is too long: 213462 tokens > 200000 maximum", type="invalid_request_error"),
    "Anthropic, with the answer": said("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"),
    "Bedrock": said("Input is too long for requested model."),
    "Gemini, in a list": (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
        "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576)."}}]),
    "Groq": said("Please reduce the length of the messages or completion."),
    "xAI": (400, {"code": "Client specified an invalid argument", "error":
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens."}),
    "Qwen": said("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]"),
    "GLM": (400, {"code": 20015, "data": None, "message":
        "number of input tokens (204703) has exceeded max_prompt_tokens (202752) limit."}),
    "GLM's number": said("Prompt exceeds max length", code="1261"),
    "Kimi": said("Invalid request: Your request exceeded model token limit: 131072"),
    "Mistral": (400, {"object": "error", "code": 3051, "message":
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"}),
    "Copilot": said("prompt token count of 140000 exceeds the limit of 128000"),
    "llama.cpp": said("the request exceeds the available context size, try increasing it"),
    "llama.cpp, older": said("the request exceeds the available context size", 500),
    "LM Studio": (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context"}),
    "MiniMax": said("invalid params, context window exceeds limit"),
    "Triton": said("The sum of prompt length (9000.0), query length (0) should not exceed max_num_tokens (8192)"),
    "TGI": (422, {"error": "Input validation error: `inputs` must have less than 1024 input tokens. Given: 2000"}),
    "OpenRouter, the provider behind it": said("Provider returned error", metadata={"raw": json.dumps(
        {"error": {"message": "no", "code": "context_length_exceeded"}})}),
}  # fmt: skip
REFUSED: dict[str, tuple[int, Any]] = {
    "Azure": said("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        code="content_filter", param="prompt", innererror={"code": "ResponsibleAIPolicyViolation"}),
    "Azure, the cause only": said("no", innererror={"code": "ResponsibleAIPolicyViolation"}),
    "Alibaba": said("Input data may contain inappropriate content.", code="data_inspection_failed"),
    "Alibaba, native": (400, {"code": "DataInspectionFailed", "message": "no"}),
    "DeepSeek": said("Content Exists Risk", code="invalid_request_error"),
    "OpenAI": said("Invalid prompt: your prompt was flagged as potentially violating our usage policy."),
    "OpenAI, newer": said("Invalid prompt: we've limited access to this content for safety reasons.", code="x"),
    "OpenRouter": said('z-ai/m requires moderation on Z. Your input was flagged for "violence".', 403),
    "xAI": (403, {"code": "x", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}),
    "Anthropic": said("Output blocked by content filtering policy"),
    "Kimi": said("The request was rejected because it was considered high risk", type="content_filter"),
    "GLM": said("no", code="1301"),
    "Volcengine": said("no", code="InputTextSensitiveContentDetected"),
}  # fmt: skip
NO_MONEY: dict[str, tuple[int, Any]] = {
    "Anthropic": said("Your credit balance is too low to access the Anthropic API."),
    "OpenAI": said("You exceeded your current quota, please check your plan and billing details.", 429,
        code="insufficient_quota", type="insufficient_quota"),
    "DeepSeek": said("Insufficient Balance", 402),
    "DeepSeek behind a gateway": said("Insufficient Balance", 400),
    "Alibaba": said("Access denied, please make sure your account is in good standing.", code="Arrearage"),
    "Kimi": said("Your account is suspended", 429, type="exceeded_current_quota_error"),
    "GLM": said("余额不足或无可用资源包,请充值。", 429, code="1113"),
    "GLM for Anthropic's clients": said("余额不足", 429, type="rate_limit_error"),
    "xAI": (403, {"error": "Your newly created team doesn't have any credits yet."}),
    "SiliconFlow": (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}),
    "OpenRouter": said("This request requires more credits, or fewer max_tokens.", 402),
    "OpenRouter, a key's": said("Key limit exceeded (total limit). Manage it in the settings", 403),
    "Anthropic, a workspace's": said("You have reached your specified API usage limits."),
    "Copilot": said("Monthly quota exceeded. Upgrade your plan or wait.", 429, code="quota_exceeded"),
}  # fmt: skip
NO_MODEL: dict[str, tuple[int, Any]] = {
    "OpenAI": said("The model `gpt-4.9-x` does not exist or you do not have access to it.", 404),
    "OpenAI, a project's": said("Project `p` does not have access to model `m`", 403, code="model_not_found"),
    "OpenRouter": said("x/y is not a valid model ID"),
    "DeepSeek": said("Model Not Exist"),
    "Mistral": (400, {"object": "error", "message": "Invalid model: mistral-giant", "code": "1500"}),
    "xAI": (400, {"code": "x", "error": "The model grok-4.2 does not exist or your team does not have access to it."}),
    "Groq": said("The model `x-1.5` has been decommissioned and is no longer supported.", code="model_decommissioned"),
    "Ollama": said('model "llama9" not found, try pulling it first', 404),
    "Gemini": said("models/gemini-9.9 is not found for API version v1beta", 400),
    "Bedrock": said("The provided model identifier is invalid."),
    "Together": said("Unable to access model m.", code="model_not_available"),
    "Copilot": said("The requested model is not supported.", code="model_not_supported"),
    "a gateway": said("Validation error: Model gpt-9 is not available"),
    "GLM": said("模型不存在,请检查模型代码。", code="1211"),
}  # fmt: skip
TOO_OFTEN: dict[str, tuple[int, Any]] = {
    "Groq": said("Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000", 413,
        code="rate_limit_exceeded", type="tokens"),
    "Groq, words only": said("Request too large for model `m` on tokens per minute (TPM): Limit 6000", 413),
    "Gemini": (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message":
        "You exceeded your current quota, please check your plan and billing details."}}]),
    "Bedrock": said("Too many tokens, please wait before trying again.", 429),
    "Bedrock behind a gateway": said("ThrottlingException: Too many tokens, please wait before trying again.", 503),
    "Groq's flex tier": said("Flex tier capacity exceeded", 498, code="capacity_exceeded"),
    "AWS": (400, {"type": "ThrottlingException", "message": "no"}),
    "Alibaba": said("Requests rate limit exceeded, please try again later.", code="Throttling.RateQuota"),
}  # fmt: skip
NO_KEY: dict[str, tuple[int, Any]] = {
    "Gemini": (400, [{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message":
        "API key not valid. Please pass a valid API key."}}]),
    "xAI": (400, {"code": "x", "error": "Incorrect API key provided: xa***ey."}),
}  # fmt: skip
OTHER: dict[str, tuple[int, Any]] = {
    "a parameter": said("Unsupported parameter: 'max_tokens' is not supported with this model."),
    "a model without a faculty": said("model m does not support tools"),
    "a tool's name": said("Invalid 'tools[0].function.name': string too long. Expected a maximum length 64",
        code="string_above_max_length"),
}  # fmt: skip
TABLE = {
    "context_length": TOO_LONG, "refused": REFUSED, "payment": NO_MONEY, "not_found": NO_MODEL,
    "rate_limited": TOO_OFTEN, "auth": NO_KEY, "bad_request": OTHER,
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "status", "body"),
    [
        pytest.param(code, *answer, id=f"{code}: {provider}")
        for code, rows in TABLE.items()
        for provider, answer in rows.items()
    ],
)
def test_a_failure_has_the_same_name_with_every_provider(code: str, status: int, body: Any) -> None:
    failed = read_failure(status, json.dumps(body).encode(), {})

    assert failed.code == code
    assert failed.retryable == (code == "rate_limited" and "too large" not in failed.message)


@pytest.mark.parametrize(("status", "body"), [TOO_LONG["GPT-5"], TOO_LONG["Anthropic"], REFUSED["OpenAI"]])
def test_a_failure_inside_a_200_has_the_same_name(status: int, body: Any) -> None:
    with pytest.raises(CallFailed) as failure:
        read_completion(json.dumps(body).encode(), "m")

    assert failure.value.code == read_failure(status, json.dumps(body).encode(), {}).code
    assert not failure.value.retryable


#: What MiniMax says in a 200, and what it means.
BASE_RESP = {
    1000: "upstream", 1002: "rate_limited", 1004: "auth", 1008: "payment", 1026: "refused", 1027: "refused",
    1039: "rate_limited", 2013: "bad_request", 2049: "auth", 2056: "rate_limited", 4711: "upstream",
}  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("number", BASE_RESP)
def test_a_failure_that_minimax_says_in_a_200_has_its_right_name(number: int, streamed: bool) -> None:
    event = {"id": "x", "choices": None, "base_resp": {"status_code": number, "status_msg": "no such luck"}}
    body = json.dumps(event).encode()

    with pytest.raises(CallFailed) as failure:
        read_completion(b"data: " + body + b"\n\ndata: [DONE]\n\n" if streamed else body, "m")

    assert failure.value.code == BASE_RESP[number]
    assert failure.value.retryable == (BASE_RESP[number] in ("upstream", "rate_limited"))
    assert "no such luck" in failure.value.message


def test_the_words_of_minimax_count_beside_its_number() -> None:
    said = {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}}

    with pytest.raises(CallFailed) as failure:
        read_completion(json.dumps(said).encode(), "m")

    assert failure.value.code == "context_length"


def test_a_success_that_minimax_says_is_none() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}
    said = {"choices": [choice], "base_resp": {"status_code": 0, "status_msg": ""}}

    assert read_completion(json.dumps(said).encode(), "m").content == "Paris."


def test_every_kind_of_failure_that_has_wordings_is_held_against_some() -> None:
    assert {row.code for row in WORDINGS} == TABLE.keys() - {"bad_request"}


def test_a_name_is_spelled_as_it_is_compared_and_stands_once() -> None:
    names = [name for row in WORDINGS for name in row.names]

    assert names == [name.lower() for name in names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "bad_request", False),
        (401, "auth", False),
        (402, "payment", False),
        (403, "auth", False),
        (404, "not_found", False),
        (408, "timeout", True),
        (409, "bad_request", True),
        (413, "context_length", False),
        (422, "bad_request", False),
        (425, "bad_request", True),
        (429, "rate_limited", True),
        (500, "upstream", True),
        (529, "upstream", True),
    ],
)
def test_a_status_has_a_code_and_says_whether_to_retry(status: int, code: str, retryable: bool) -> None:
    failed = read_failure(status, b'{"error": {"message": "no"}}', {})

    assert (failed.code, failed.retryable, failed.status) == (code, retryable, status)
    assert failed.message == f"HTTP {status}: no"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no", "param": "seed"}}, "HTTP 400: no"),
        ({"error": {"message": "no", "metadata": {"raw": "deep down: no"}}}, "HTTP 400: no (deep down: no)"),
        ({"error": "no"}, "HTTP 400: no"),
        ({"message": "no"}, "HTTP 400: no"),
        ({"detail": "no"}, "HTTP 400: no"),
        ({"detail": [{"loc": ["x"]}]}, "HTTP 400: [{'loc': ['x']}]"),
        (["no"], "HTTP 400: ['no']"),
    ],
)
def test_an_endpoints_own_words_are_kept(body: Any, message: str) -> None:
    assert read_failure(400, json.dumps(body).encode(), {}).message == message


def test_a_refused_parameter_is_named() -> None:
    assert read_failure(400, b'{"error": {"message": "no", "param": "seed"}}', {}).param == "seed"
    assert read_failure(400, b'{"error": {"message": "no", "param": 3}}', {}).param is None


def test_a_move_says_where_to() -> None:
    failed = read_failure(301, b"", {"location": "https://h/v1"})

    assert failed.message == "HTTP 301: moved to https://h/v1: an empty body"
    assert not failed.retryable


def test_a_prompt_too_long_has_a_code_of_its_own() -> None:
    body = b'{"error": {"message": "This model\'s maximum context length is 4096 tokens"}}'

    assert read_failure(400, body, {}).code == "context_length"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "1.2.3"}, None),
        ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
    ],
)
def test_the_wait_that_is_asked_for_is_read_in_every_form(headers: Any, seconds: float | None) -> None:
    assert read_failure(429, b"", headers).retry_after_s == seconds


def test_a_date_to_wait_for_is_seconds_from_now() -> None:
    headers = {"retry-after": formatdate(time.time() + 100, usegmt=True)}

    assert 90 < (read_failure(429, b"", headers).retry_after_s or 0) <= 100


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "9" * 400},
        {"retry-after": "9" * 40},
        {"retry-after-ms": "9" * 400},
        {"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"},
        {"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"},
        {"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"},
        {"retry-after": "Mon, 01 Jan 2024 00:00:00 +9999999999"},
    ],
)
def test_a_wait_that_nobody_can_mean_is_none(headers: Any) -> None:
    assert read_failure(429, b"", headers).retry_after_s in (None, 0.0)


#: What dates and numbers are made of, so that many get as far as being read.
HEADER = st.one_of(
    st.text(max_size=40),
    st.text("0123456789.", max_size=420),
    st.builds(
        "{}, {} {} {} {}:{}:00 {}{}".format,
        st.sampled_from(["Mon", "Fri", ""]), st.integers(-9, 99), st.sampled_from(["Jan", "Dec", "13"]),
        st.integers(-9, 10**20), st.integers(0, 99), st.integers(0, 99), st.sampled_from(["+", "-", "GMT"]),
        st.integers(0, 10**12),
    ),
)  # fmt: skip


@given(value=HEADER, name=st.sampled_from(["retry-after", "retry-after-ms", "location", "x-should-retry"]))
@pytest.mark.parametrize("status", [302, 413, 429, 503])
def test_a_header_of_any_value_is_a_failure_with_a_name(status: int, name: str, value: str) -> None:
    failed = read_failure(status, b"{}", {name: value})

    assert failed.code in CODES
    assert failed.retry_after_s is None or 0 <= failed.retry_after_s <= 366 * 86_400


SCALAR = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=12)
FIELD = st.sampled_from(
    ["error", "code", "type", "status", "message", "detail", "param", "metadata", "raw", "details", "innererror"]
)
SHAPE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=5), max_leaves=12
)


@given(body=SHAPE, status=st.integers(300, 999))
def test_an_error_of_any_shape_is_a_failure_with_a_name(body: Any, status: int) -> None:
    failed = read_failure(status, json.dumps(body).encode(), {})

    assert failed.code in CODES
    assert len(failed.message) < 400


@given(error=SHAPE)
def test_an_error_of_any_shape_inside_a_200_is_a_failure_with_a_name(error: Any) -> None:
    with pytest.raises(CallFailed) as failure:
        read_completion(json.dumps({"error": error, "choices": []}).encode(), "m")

    assert failure.value.code in CODES


@pytest.mark.parametrize("shape", ['{"a":%s}', "[%s]", '{"error":%s}', '{"message":%s}', '{"metadata":{"raw":%s}}'])
@pytest.mark.parametrize("levels", [200, 300, 480, 990, 100_000])
@pytest.mark.parametrize("status", [200, 400, 503])
def test_an_error_may_be_nested_as_deeply_as_it_likes(shape: str, levels: int, status: int) -> None:
    before, _, behind = shape.partition("%s")
    deep = before * levels + "1" + behind * levels
    whole = f'{{"error": {deep}}}'.encode()

    if status == 200:
        with pytest.raises(CallFailed) as failure:
            read_completion(whole, "m")
        assert failure.value.code in CODES
    else:
        assert read_failure(status, whole, {}).code in CODES


# --- How long to wait ---


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 30.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "5"}, 5.0),
        ({"retry-after": "2", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 2.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "6m0s"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"retry-after": "99999999999999"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_what_the_headers_say(headers: dict[str, str], wait_s: float | None) -> None:
    assert wait_asked_for(headers) == wait_s


def test_of_two_limits_that_are_used_up_the_longer_wait_counts() -> None:
    used_up = {f"x-ratelimit-remaining-{what}": "0" for what in ("requests", "tokens")}

    assert wait_asked_for(used_up | {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "4s"}) == 4.0


@pytest.mark.parametrize(
    "said",
    [
        lambda at: {"retry-after": format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)},
        lambda at: {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(at))},
        lambda at: {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(at * 1000))},
        lambda at: {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
        },
    ],
    ids=["date", "seconds", "milliseconds", "time"],
)
def test_a_time_is_a_wait_until_then(said: object) -> None:
    wait_s = wait_asked_for(said(time.time() + 600))  # type: ignore[operator]

    assert wait_s is not None
    assert 590 < wait_s <= 600
