"""The rounds of a panel that is asked until it is sure what most say: the rule written for one question."""

from __future__ import annotations

from collections.abc import Sequence

from fusiontools.answers.certainty import leading, still_needed


def rounds_until_sure(keys: Sequence[str | None], until: float, at_once: int = 1) -> list[int]:
    """Return how many votes have been asked for after each round, for votes that come in this order.

    A round asks for as many as are needed at the least, so that no vote is asked for that one by one would not have
    been; the last one ends with all of them where they do not make sure.

    Args:
        at_once: a round asks for so many at least.
    """
    asked: list[int] = []
    heard = 0
    while heard < len(keys) and (more := still_needed(leading(keys[:heard]), until)):
        heard = min(len(keys), heard + max(more, at_once))
        asked.append(heard)
    return asked
