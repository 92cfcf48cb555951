"""Why an answer ended, whichever provider says it: nothing that may have been cut is `stop`."""

from __future__ import annotations

from typing import Any

import pytest

from fusiontools.llm.finish_reasons import read_finish_reason

SPELLED = {
    "stop": "stop STOP end_turn stop_sequence eos eos_token COMPLETE FINISH_REASON_STOP FinishReason.STOP eosFound",
    "length": "length LENGTH max_tokens MAX_TOKENS max_output_tokens model_length model_context_window_exceeded "
    "pause_turn FINISH_REASON_MAX_TOKENS maxPredictedTokensReached contextLengthReached token_limit limit",
    "tool_calls": "tool_calls tool_use TOOL_CALL tool-calls toolCalls function_call",
    "content_filter": "content_filter SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII sensitive "
    "guardrail_intervened content_filtered ERROR_TOXIC IMAGE_SAFETY content-filter content_filter:SAFETY "
    "input_blocked_by_policy",
    "refusal": "refusal",
    "error": "error ERROR failed",
}


@pytest.mark.parametrize(
    ("reason", "said"), [(reason, said) for reason, row in SPELLED.items() for said in row.split()]
)
def test_every_providers_word_is_one_of_openais(reason: str, said: str) -> None:
    assert read_finish_reason(said) == reason


def test_a_word_that_is_followed_by_a_reason_counts() -> None:
    assert read_finish_reason("content_filter: RECITATION") == "content_filter"


@pytest.mark.parametrize(
    "said",
    ["insufficient_system_resource", "network_error", "MALFORMED_FUNCTION_CALL", "abort", "OTHER", "tomorrow", 7, True,
     ["stop"], "function_call_filter: MALFORMED_FUNCTION_CALL", {"type": "length", "length": 9}, {"type": "abort"}],
)  # fmt: skip
def test_what_nobody_knows_may_have_been_cut(said: Any) -> None:
    assert read_finish_reason(said) == "length"


@pytest.mark.parametrize("said", [None, "", "null", "None", "FINISH_REASON_UNSPECIFIED", {}])
def test_no_reason_is_none(said: Any) -> None:
    assert read_finish_reason(said) is None
