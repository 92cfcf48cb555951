r"""Read each answer as a vote: one canonical key for all answers that say the same, None for one that abstains.

Vote, lexical judge, `agreement`, early stop and grades all ask `keys.read_votes`.

What counts in an answer is what it gives as its result: the last `\boxed{…}` or `#### …`, else `Answer: …` or "the
answer is …", else the one thing in bold on the line that concludes it, else that line: the last one, the first where
only that is short, or the list that the last one ends. Then, by kind:

number  exact: 1.0 = 1, 1/2 = 0.5, 1e3 = 10^3 = 1,000. Units and currency are told apart and never converted; a bare
        number has the unit that most others name. 50% is 0.5, but where a percentage is asked for, a bare 50 is 50%.
        3-5 is a range, `2 and 3` is both. Expressions, inequalities and dates are no numbers. Of several in a sentence,
        the first counts, or the one behind `so`, `leaving`, `but`. Where a version, an id or a code is asked for, text.
choice  the letter; or the option's text, where the question lists options
yes_no  what the answer, or its conclusion, opens with
text    words, without Markdown, case, articles and punctuation, and without "The capital of France is" where the
        question has those words; answers whose words are among another's, or mostly shared, are one, unless a number,
        a "not" or just one word sets them apart. Signs stay where they are mathematics: x+1 is not x-1, C++ is not C.
        Of a long answer, which gives no result, only the same text is the same: all else is unknown.
json    the value at a path: of JSON in a fence or amid prose, also with trailing commas
regex   the first group (or all) of the last match in the last 2,000 characters, read as a number or as text, by RE2

Who says that he does not know, or refuses, abstains, unless the question offers that very answer. Of a long answer the
first 4,000 and the last 12,000 characters are read, for JSON the last 200,000.

Source  Wang et al. 2022, self-consistency, arXiv:2203.11171
"""

from __future__ import annotations

from fusiontools.answers.keys import check_key, vote_keys
from fusiontools.answers.structured import calls_key
from fusiontools.answers.tally import Tally, count_votes

__all__ = ["Tally", "calls_key", "check_key", "count_votes", "vote_keys"]
