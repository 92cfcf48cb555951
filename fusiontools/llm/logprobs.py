"""How sure a model was of what it wrote, by the log probabilities of the tokens that it chose.

`mean_logprob` is their mean, `lowest_window_logprob` the lowest mean of any `WINDOW` tokens in a row: where the model
was least sure of itself. A text that is shorter is one window. What an endpoint says is not ours to trust: what is no
log probability is left out, and what is said to be all but impossible counts as `LOWEST`.

Source  Fu et al. 2025, DeepConf, arXiv:2508.15260: the lowest group confidence, with two differences. Theirs is of the
        likeliest k tokens of each step, ours of the chosen one, which is all that endpoints give unless asked for more;
        and their groups are of up to 2,048 tokens, for traces of tens of thousands
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, TypedDict

#: Tokens in a row that are one window.
WINDOW = 64
#: The lowest that a token counts, a chance of 1 in 10¹³: servers write -9999 for what is below all that they know.
LOWEST = -30.0
#: Rounding makes some that are 0 a little more; what is more than this is no log probability.
_ROUNDED = 1e-3


class Sureness(TypedDict, total=False):
    """How sure a model was; without keys where nothing is known."""

    mean_logprob: float
    lowest_window_logprob: float


def read_logprobs(said: Any) -> list[float]:
    """Return the log probabilities of the tokens in a choice's `logprobs`, in any of the forms that servers write.

    Args:
        said: `{"content": [{"logprob": …}]}`, or `{"token_logprobs": […]}` as completions have it; else it has none.
    """
    tokens = said.get("content") if isinstance(said, dict) else None
    values: Any = said.get("token_logprobs") if isinstance(said, dict) and not tokens else None
    if isinstance(tokens, list) and tokens:
        values = [token.get("logprob") for token in tokens if isinstance(token, dict)]
    if not isinstance(values, list):
        return []
    numbers: list[float] = [value for value in values if type(value) in (float, int)]
    return [max(LOWEST, min(0.0, number)) for number in numbers if number <= _ROUNDED]


def sum_up(logprobs: Sequence[float]) -> Sureness:
    """Return what the log probabilities of a text's tokens come to, in its order."""
    if not logprobs:
        return {}
    count, length = len(logprobs), min(WINDOW, len(logprobs))
    before = [0.0, *accumulate(logprobs)]
    lowest = min(before[at + length] - before[at] for at in range(count - length + 1)) / length
    mean = math.fsum(logprobs) / count
    # Sums of floats in two orders: no window is surer than the whole text.
    return {"mean_logprob": mean, "lowest_window_logprob": min(lowest, mean)}
