r"""Say what each answer votes for: one key for all that say the same, None for one that abstains.

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

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from fusiontools.answers import agreement, normalize, numbers, structured, words
from fusiontools.answers.agreement import Question
from fusiontools.answers.extract import (
    KEY_CHARS,
    SHORT_WORDS,
    Result,
    cut_key,
    is_marked,
    mark,
    result_of,
    strip_markdown,
)
from fusiontools.answers.numbers import Quantity
from fusiontools.answers.patterns import compile_later
from fusiontools.errors import UsageError, nearest

#: A question for a name in digits: there, 3.10 is not 3.1, and 007 is not 7.
_CODED = (
    r"(?:version|release|id|identifier|hash|serial|(?:zip|post|area|error|status|product|country) ?code|postcode"
    r"|(?:phone|telephone|room|serial|model|part|flight) number|ip|isbn|pin|password)"
)
ASKS_CODE = compile_later(
    rf"\b(?:what|which)(?: is)?(?: [\w+#]+){{0,3}} (?:{_CODED}|code)\b"
    rf"(?! (?:print|output|return|do|produce|evaluate|compute|give)s?\b)(?<!this code)|\b{_CODED}\W*$"
)
#: The last word of each.
CODE_WORDS_TEXT = "version release id identifier hash serial code number ip isbn pin password postcode"
CODE_WORDS = frozenset(CODE_WORDS_TEXT.split()) | {
    f"{kind}code" for kind in ("zip", "post", "area", "error", "status", "product", "country")
}
#: How many words of a long answer its key shows.
SHOWN_WORDS = 12
#: A key that cannot be read otherwise.
ONE_WORD = compile_later(r"[a-z]+")
#: How often a key is read again at most.
READINGS = 4
_Read = TypeVar("_Read")
KINDS = ("auto", "number", "choice", "text", "json:PATH", "regex:RE")


class Votes(NamedTuple):
    """What answers vote for."""

    #: number, choice, yes_no, text, json or regex.
    kind: str
    #: What each answer says, the same text for all that say the same: its key, or, of a long answer without a result,
    #: all of it behind a line feed. Never an empty one; None where it abstains.
    said: list[str | None]
    #: Positions of long answers of which code cannot tell whether they agree with others: it finds no result in them,
    #: or they differ from one with the same result in nothing but a number, a formula or a "not".
    vague: frozenset[int]
    #: Positions of answers that give none, and say so.
    refusing: frozenset[int]

    @property
    def keys(self) -> list[str | None]:
        """Each answer's canonical key, never an empty one; None where it abstains."""
        return [cut_key(_key_of(said)) if said else None for said in self.said]


def check_key(key: str) -> None:
    """Refuse a key that cannot be.

    Raises:
        UsageError: an unknown kind, a bad path, a bad regular expression, or one that may never come to an end.
    """
    kind, colon, rest = key.partition(":")
    if kind == "json" and colon:
        structured.steps_of(rest)
    elif kind == "regex" and colon:
        structured.compiled(rest)
    elif key not in KINDS[:4]:
        raise UsageError(f"there is no key {key!r}{nearest(key, list(KINDS))}")


def vote_keys(texts: Sequence[str], key: str = "auto", question: str = "") -> tuple[str, list[str | None]]:
    """Return the kind, and what each text votes for; see `read_votes`."""
    votes = read_votes(texts, key, question)
    return votes.kind, votes.keys


def read_responses(responses: Sequence[Mapping[str, Any]], key: str = "auto", question: str = "") -> Votes:
    """Read all responses as votes; under `auto`, tool calls speak for themselves."""
    called = {
        at: made for at, response in enumerate(responses) if key == "auto" and (made := response.get("tool_calls"))
    }
    told = [at for at in range(len(responses)) if at not in called]
    votes = read_votes([responses[at].get("content", "") for at in told], key, question)
    if not called:
        return votes
    said: dict[int, str | None] = {at: structured.calls_key(made) for at, made in called.items()}
    said.update(zip(told, votes.said, strict=True))
    return Votes(
        votes.kind if told else "json",
        [said[at] for at in range(len(responses))],
        frozenset(told[at] for at in votes.vague),
        frozenset(told[at] for at in votes.refusing),
    )


def read_votes(texts: Sequence[str], key: str = "auto", question: str = "") -> Votes:
    """Read all answers to a question as votes.

    Args:
        key: `number`, `choice`, `text`, `json:PATH`, `regex:RE`; for `auto`, the one kind that more than half of those
            who say anything can be read as. Whoever cannot be read as the others abstains.

    Raises:
        UsageError: the key cannot be.
    """
    kind, colon, rest = key.partition(":")
    if kind == "regex" and colon:
        pattern = structured.compiled(rest)
        said = [_comparable(structured.by_pattern(pattern, text)) for text in texts]
        return Votes(kind, said, frozenset(), frozenset())
    if kind == "json" and colon:
        steps = structured.steps_of(rest)
        said = [_comparable(structured.by_path(steps, text)) for text in texts]
        return Votes(kind, said, frozenset(), frozenset())
    check_key(key)
    asked = agreement.ask(question)
    known = {text: result_of(text, asked) for text in dict.fromkeys(texts)}
    results = [known[text] for text in texts]
    doubtful: list[tuple[int, int]] = []
    if any(each and each.long and not each.vague for each in results):
        doubtful = _doubtful(results)
        results = [
            each._replace(vague=True) if each and any(at in pair for pair in doubtful) else each
            for at, each in enumerate(results)
        ]
    read: Sequence[str | None]
    if key == "number":
        read = numbers.keys_of([_number(each, asked) for each in results], asked.text)
    elif key == "choice":
        options = words.options_of(asked.text)
        read = [words.letter_of(each, options, asked.text) if each else None for each in results]
    elif key == "text":
        read = _as_text(results, asked)
    else:
        kind, read = _suiting(texts, results, asked)
    read = [_comparable(each) for each in read]
    unread = [at for at, each in enumerate(results) if each and each.vague and (kind == "text" or not read[at])]
    if kind != "text":
        # As text, the vague ones are unread already, and comparing whole texts takes as long as reading them.
        doubtful = doubtful or _doubtful(results)
    vague = frozenset(unread).union(*(pair for pair in doubtful if read[pair[0]] and read[pair[0]] == read[pair[1]]))
    refusing = [at for at, each in enumerate(results) if each is None and not read[at] and texts[at].strip()]
    return Votes(kind, read, vague, frozenset(refusing))


def surely_vague(texts: Sequence[str], question: str = "") -> bool:
    """Say whether code can at once not tell if answers agree: the two longest differ, and are long without a result.

    Then `read_votes`, asked for `auto`, finds the longest vague, and not all say the same, whatever the others say that
    are not looked at. That it is false says nothing.
    """
    longest = sorted(dict.fromkeys(texts), key=len, reverse=True)[:2]
    if len(longest) < 2 or len(longest[1]) <= SHORT_WORDS:
        return False
    asked = agreement.ask(question)
    if asked.polar or asked.either or words.options_of(asked.text) or asks_code(asked):
        return False
    one, other = (result_of(text, asked) for text in longest)
    if not (one and one.vague and other and other.vague) or one.long == other.long:
        return False
    return not (structured.whole_key(longest[0]) or _concluded_number(one, asked))


def _doubtful(results: Sequence[Result | None]) -> list[tuple[int, int]]:
    """Return the pairs of long answers that are nearly the same text, but for a fact."""
    long = {at: each.long for at, each in enumerate(results) if each and each.long}
    if len(set(long.values())) < 2:
        return []
    found = {at: frozenset(normalize.tokens(text)) for at, text in long.items()}
    near = [(a, b) for a, b in itertools.combinations(found, 2) if agreement.nearly_same(found[a], found[b])]
    return [(a, b) for a, b in near if agreement.facts(long[a], found[a]) != agreement.facts(long[b], found[b])]


def literal_keys(texts: Sequence[str], question: str) -> list[str | None]:
    """Return the words of each answer's result, in which nothing but its spelling is made the same."""
    asked = agreement.ask(question)
    results = [result_of(text, asked) for text in texts]
    if asks_code(asked):
        return [cut_key(words.literal_of(each.pieces[0], asked)) or None if each else None for each in results]
    return [_key_of(_words(each, asked)) or None if each else None for each in results]


def asks_code(asked: Question) -> bool:
    """Say whether a question asks for a name in digits."""
    return agreement.may_hold(asked.text, asked.words, CODE_WORDS) and ASKS_CODE.search(asked.text) is not None


def _comparable(said: str | None) -> str | None:
    """Return what an answer says as it can be written, and as its key where that is not made of all of a long one."""
    if not said:
        return None
    return said.encode("utf-8", "replace").decode() if said[0] == "\n" else cut_key(said)


def _key_of(said: str) -> str:
    """Return the key of what an answer says in words; of a long one, a few words and what stands for all of it."""
    if said[:1] != "\n":
        return said
    long = said[1:]
    return mark(" ".join(normalize.tokens(long[:KEY_CHARS])[:SHOWN_WORDS]), long)


def _suiting(
    texts: Sequence[str], results: Sequence[Result | None], asked: Question
) -> tuple[str, Sequence[str | None]]:
    """Read all results as the first kind that suits more than half of those that say anything."""
    whole = [structured.whole_key(text) for text in texts]
    if sum(map(bool, whole)) > len(list(filter(None, results))) / 2:
        return "json", whole
    options = words.options_of(asked.text)
    # What is spoken of in passing in a long text chooses nothing, where nothing was to be chosen.
    chosen = _most(results, lambda each: words.letter_of(each, options, asked.text), vague=bool(options))
    if chosen:
        return "choice", chosen
    verdicts = _most(results, lambda each: words.verdict_of(each, asked), vague=asked.polar or bool(asked.either))
    if verdicts:
        return "yes_no", verdicts
    if asks_code(asked):
        return "text", [words.literal_of(each.pieces[0], asked) if each else None for each in results]
    enough = numbers.NEW if asked.number or not numbers.WHEN.isdisjoint(asked.words) else numbers.ALONE
    counted = _most(
        results, lambda each: _concluded_number(each, asked), lambda number: number.grade >= enough, vague=True
    )
    return ("number", numbers.keys_of(counted, asked.text)) if counted else ("text", _as_text(results, asked))


def _most(
    results: Sequence[Result | None],
    read: Callable[[Result], _Read | None],
    suits: Callable[[_Read], bool] = bool,
    *,
    vague: bool,
) -> list[_Read | None] | None:
    """Read all results, each once; None as soon as no more than half of those that say anything can suit.

    Args:
        vague: whether those of long answers without a result are read.
    """
    told = [each for each in results if each]
    spare = len(told) / 2
    known: dict[Result, _Read | None] = {}
    for each in told:
        if each not in known:
            known[each] = read(each) if vague or not each.vague else None
        found = known[each]
        if not found or not suits(found):
            spare -= 1
            if spare <= 0:
                return None
    return [known[each] if each else None for each in results] if told else None


def _as_text(results: Sequence[Result | None], asked: Question) -> list[str | None]:
    """Return what each result says in words: of all that say the same, what most say, else the shortest."""
    known = {each: _words(each, asked) if each else "" for each in dict.fromkeys(results)}
    if any(map(is_marked, known.values())):
        # An answer that is a key says the same as the long one from which it was made.
        known = {each: _key_of(said) for each, said in known.items()}
    keys = [known[each] for each in results]
    said = {
        key: agreement.say(asked, strip_markdown(each.pieces[0]))
        for key, each in zip(keys, results, strict=True)
        if key and each and not each.vague and not words.is_formula(key)
    }
    if len(said) < 2:
        return [key or None for key in keys]
    count = Counter(keys)
    shown: dict[str, str] = {}
    for group in agreement.cluster(asked, said):
        best = min(group, key=lambda key: (-count[key], len(key), key))
        shown.update(dict.fromkeys(group, best))
    return [shown.get(key, key) or None for key in keys]


def _words(result: Result, asked: Question) -> str:
    """Return the words of a result; of a long answer, all of it behind a line feed, which is in no other key.

    They are read again until they say no less, so that a key is its own key.
    """
    if result.vague:
        return f"\n{result.long}"
    if is_marked(result.pieces[0]):
        return result.pieces[0]
    key = cut_key(words.key_of(result.pieces[0], asked))
    if key == result.pieces[0] or ONE_WORD.fullmatch(key) or is_marked(key):
        return key
    for _ in range(READINGS):
        again = result_of(key, asked)
        read = words.key_of(again.pieces[0], asked) if again else ""
        if read == key:
            break
        key = read
    return key


def _number(result: Result | None, asked: Question) -> Quantity | None:
    for piece in result.all_pieces if result else ():
        if numbers.HINT.search(piece) and (
            found := numbers.read(piece, asked.words, stated=bool(result and result.stated))
        ):
            return found
    return None


def _concluded_number(result: Result | None, asked: Question) -> Quantity | None:
    """Return the number that an answer gives; of a long one, only where a line gives nothing else, or concludes it."""
    if result is None or not result.vague:
        return _number(result, asked)
    for piece in filter(normalize.DIGIT.search, dict.fromkeys(result.all_pieces)):
        found = numbers.read_conclusion(piece, asked.words)
        if found and (asked.number or piece in (result.pieces[-1], result.first)):
            return found
    return None
