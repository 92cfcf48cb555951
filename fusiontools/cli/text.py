"""Records, answers and amounts as a person reads them; answers also while they are being written."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, cast

from msgspec import Struct

from fusiontools.llm.completion import Delta
from fusiontools.record.clean import CleanStream, clean
from fusiontools.record.sections import abstention_words, display_names, question_text
from fusiontools.record.types import Analysis, Contradiction, PanelClaim, Record, Response, Route, Source

if TYPE_CHECKING:
    from fusiontools.cli.markdown import MarkdownScreen

_ASKED_CHARS = 60
_RULE_CHARS = 74
_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33}


class Paint(Struct, frozen=True):
    """Colours, where there are any."""

    colour: bool

    def __call__(self, text: str, style: str | None) -> str:
        """Return text in a style: bold, dim, red, green or yellow."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[m" if self.colour and style else text

    def removed(self, text: str) -> str:
        """Return what is on the first side only."""
        return self(text, "red")

    def added(self, text: str) -> str:
        """Return what is on the second side only."""
        return self(text, "green")

    def heading(self, text: str) -> str:
        """Return a title."""
        return self(text, "bold")

    def aside(self, text: str) -> str:
        """Return a remark of ours between a model's words."""
        return self(text, "dim")


def money(usd: float) -> str:
    """Return an amount with four decimals, and with more where it is small."""
    decimals = 4 if usd >= 0.01 else 6 if usd >= 0.0001 else 8
    whole, _, cents = f"{usd:,.{decimals}f}".partition(".")
    return f"${whole}.{cents[:4]}{cents[4:].rstrip('0')}"


def sets_markdown(plain: bool) -> bool:
    """Return whether an answer's Markdown is set: for a person who reads it on a terminal, unless it is to be plain."""
    return os.isatty(1) and not plain and os.environ.get("TERM", "dumb") != "dumb"


def heading(record: Record) -> str:
    """Return the line above an answer that is one of several: its record's id and how the question begins."""
    asked = " ".join(question_text(record).split())
    shown = asked if len(asked) <= _ASKED_CHARS else asked[: _ASKED_CHARS - 1] + "…"
    return clean(f"\n--- {record['id']}: {shown} ---\n")


def record_as_text(record: Record, verbose: bool, *, with_answer: bool = True) -> str:
    """Return the record's last section, or all of them; ends with a newline."""
    parts: list[str] = []
    answer = record.get("answer")
    if "route" in record and (verbose or not record.keys() & {"panel", "analysis", "answer"}):
        parts.append(_route(record["route"]))
    for number, layer in enumerate(record.get("layers", []) if verbose else [], start=1):
        parts += _responses(layer, f"layer {number}, ")
    if "panel" in record and (verbose or answer is None):
        parts += _responses(record["panel"])
    if "analysis" in record and (verbose or answer is None):
        parts.append(_analysis(record["analysis"]))
    if answer is not None and with_answer:
        heading = _rule(f"answer ({author(record)})") + "\n" if verbose else ""
        parts.append(heading + (abstention_words(answer) or _content(answer)))
        if notes := footnotes(record):
            parts.append(notes)
    return clean("\n\n".join(parts)) + "\n" if parts else ""


def answer_as_markdown(record: Record) -> str:
    """Return the answer as a terminal shows its Markdown, and the sources that it cites; ends with a newline."""
    from fusiontools.cli.markdown import MarkdownScreen

    file = io.StringIO()
    screen = MarkdownScreen(file)
    screen.take(abstention_words(record["answer"]) or _content(record["answer"]))
    screen.close()
    notes = footnotes(record)
    return file.getvalue() + (f"\n{clean(notes)}\n" if notes else "")


def footnotes(record: Record) -> str:
    """Return the sources that the answer cites, numbered; nothing where it cites none."""
    answer: Any = record.get("answer", {})
    lines = [f"[{n}] {_source(source)}" for n, source in enumerate(answer.get("sources", ()), start=1)]
    return "\n".join(lines)


def _source(source: Source) -> str:
    named = f"{source['title']}: " if source.get("title") else ""
    return named + source["url"]


def _route(route: Route) -> str:
    """Return the decision on one line: `fuse: why`, `solo NAME (tier): why`."""
    who = f" {route['model']['name']}" if "model" in route else ""
    tier = f" ({route['tier']})" if "tier" in route else ""
    return f"{route['to']}{who}{tier}: {route.get('reason', '')}"


def _responses(panel: list[Response], before: str = "") -> list[str]:
    shown = []
    said: set[str] = set()
    for name, response in zip(display_names(panel), panel, strict=True):
        if "error" in response:
            why = f"{response['error']['code']}: {response['error']['message']}"
            shown.append(f"{_rule(before + name)}\n(failed: {'the same' if why in said else why})")
            said.add(why)
        else:
            looked_up = [f"({source['how']}: {_source(source)})" for source in response.get("sources", [])]
            shown.append("\n".join([_rule(before + name), _content(response), *looked_up]))
    return shown


def _content(section: Any) -> str:
    calls = [f"{c['function']['name']}({c['function']['arguments']})" for c in section.get("tool_calls", [])]
    return "\n".join([*([section["content"].strip()] if section.get("content") else []), *calls])


def _analysis(analysis: Analysis) -> str:
    lines = [_rule(f"analysis (by {_judges(analysis)})")]
    # Code counts short answers alike; where a judge has found them to contradict each other, that says more.
    contested = analysis["contradictions"] and analysis.get("judges") != ["lexical"]
    if (agreement := analysis.get("agreement")) is not None and not contested:
        lines.append(f"agreement: {agreement:.0%} of the responses say the same")
    lines += _list("consensus", analysis["consensus"])
    lines += _list("contradictions", [_contradiction(item) for item in analysis["contradictions"]])
    lines += _list(
        "partial coverage", [f"{p['point']} ({', '.join(p['models'])})" for p in analysis["partial_coverage"]]
    )
    lines += _list("unique insights", [f"{u['insight']} ({u['model']})" for u in analysis["unique_insights"]])
    lines += _list("blind spots", analysis["blind_spots"])
    lines += _list("claims", [_claim(item) for item in analysis.get("claims", [])])
    return "\n".join(lines)


def _judges(analysis: Analysis) -> str:
    return ", ".join("code" if name == "lexical" else name for name in analysis.get("judges", ["?"]))


def _contradiction(item: Contradiction) -> str:
    """Return a topic with each stance once, after the names of those who hold it."""
    holders: dict[str, list[str]] = {}
    for stance in item["stances"]:
        holders.setdefault(stance["stance"], []).append(stance["model"])
    stances = [f"\n      {', '.join(filter(None, names))}: {stance}" for stance, names in holders.items()]
    return item["topic"] + "".join(stances)


def _claim(claim: PanelClaim) -> str:
    """Return a claim, with those who hold it and those who contradict it."""
    sides = [("held by", claim["supporters"]), ("contradicted by", claim["opponents"])]
    told = [f"{how} {', '.join(holder['model'] for holder in side)}" for how, side in sides if side]
    return f"{claim['claim']} ({'; '.join(told)})"


def _list(title: str, items: list[str]) -> list[str]:
    return [f"{title}:", *(f"  - {item}" for item in items)] if items else []


def author(record: Record) -> str:
    """Return whose words the answer is, and how it came to be the answer."""
    answer: Any = record["answer"]
    model = answer.get("model", "")
    if vote := answer.get("vote"):
        return f"{model}, with {vote['votes']:g} of {vote['of']:g} votes"
    if guard := answer.get("guard"):
        other = "the best response" if guard["winner"] == "synth" else "what was written"
        return f"{model}, preferred to {other}"
    words = {"panel": "{}, word for word", "pick": "{}, picked", "solo": "{} alone"}
    return words.get(answer["by"], "written by {}").format(model)


def _rule(title: str) -> str:
    """Return a line with a title, as wide as the terminal; where there is none, of a fixed width."""
    width = os.get_terminal_size(1).columns if os.isatty(1) else 0
    return f"── {title} " + "─" * max(3, (width or _RULE_CHARS) - len(title) - 4)


class Live:
    """One answer on its way to the screen."""

    def __init__(self, screen: Screen, record: Record) -> None:
        self._screen = screen
        self._record = record
        self._waiting: list[str] = []
        self._shown: list[str] = []
        self._clean = CleanStream()
        self._markdown: MarkdownScreen | None = None

    @property
    def begun(self) -> bool:
        """Whether anything of it has been shown."""
        return bool(self._shown)

    def take(self, delta: Delta) -> None:
        """Show a piece of the answer, now or when it is this answer's turn; tool calls are shown when all are here."""
        if isinstance(delta, str):
            self._waiting.append(delta)
            self.show_waiting()

    def show_waiting(self) -> None:
        """Show what has come, if it is this answer's turn."""
        if self._waiting and self._screen.is_turn_of(self):
            text = "".join(self._waiting)
            if not self._shown:
                self._screen.begin(self._record)
                self._markdown = self._screen.open_markdown()
            if self._markdown is not None:
                self._markdown.take(text)
            else:
                self._screen.write(self._clean.take(text).encode("utf-8", "replace"))
            self._shown.append(text)
            self._waiting.clear()

    def finish(self, record: Record) -> bool:
        """Return whether the record's answer stands on the screen; ends its line where anything does."""
        self.show_waiting()
        if self._markdown is not None:
            self._markdown.close()
        elif self._shown:
            self._screen.write(f"{self._clean.finish()}\n".encode("utf-8", "replace"))
        self._screen.next_turn(self)
        return bool(self._shown) and "".join(self._shown) == record.get("answer", {}).get("content")


class _Writer(io.TextIOBase):
    """Standard output as a file of text, for what sets an answer."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, text: str) -> int:
        """Hand the text over, in its turn."""
        self._write(text.encode("utf-8", "replace"))
        return len(text)


class Screen:
    """Where answers are shown as they are written: the oldest unfinished one live, the others when it is their turn.

    Args:
        write: takes bytes for standard output.
        is_set: whether Markdown is set.
    """

    def __init__(self, write: Callable[[bytes], None], *, is_set: bool) -> None:
        self.write = write
        self._is_set = is_set
        self._open: deque[Live] = deque()
        self._begun = 0

    def open(self, record: Record) -> Live:
        """Return a new answer, last in the queue."""
        live = Live(self, record)
        self._open.append(live)
        return live

    def open_markdown(self) -> MarkdownScreen | None:
        """Return where the answer that begins is set; None where it is shown as it was written."""
        if not self._is_set:
            return None
        from fusiontools.cli.markdown import MarkdownScreen

        return MarkdownScreen(cast("IO[str]", _Writer(self.write)))

    def begin(self, record: Record) -> None:
        """Say whose answer begins, from the second one on."""
        self._begun += 1
        if self._begun > 1:
            self.write(heading(record).encode())

    def is_turn_of(self, live: Live) -> bool:
        """Return whether this answer is the oldest unfinished one."""
        return self._open[0] is live

    def next_turn(self, live: Live) -> None:
        """Let the next answer be shown."""
        self._open.remove(live)
        if self._open:
            self._open[0].show_waiting()
