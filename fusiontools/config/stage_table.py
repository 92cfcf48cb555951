"""The stages, one row each, and what every stage and tool can be told: command line, recipes and chain texts alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fusiontools.config.options import Settings, option
from fusiontools.config.tool_options import ToolOptions

if TYPE_CHECKING:
    from fusiontools.config.models import Model

TEMPLATE_HELP = "The prompts: a name (default, deep_research, code_review, …; see the README) or a file of your own."
EVIDENCE_HELP = "A text of your own, shown to all as data and cited as a source; repeat for more."
KEY_HELP = "How answers are made comparable: auto, number, choice, text, json:PATH or regex:RE."
#: The most that a stage may ask for one record, whoever wants it.
MOST_CALLS = 10_000
MOST_WEIGHT = 1_000_000
MOST_TOOL_CALLS = 64
#: How sure `--until` may want to be.
MOST_CERTAIN = 0.9999


class StageOptions(Settings):
    """What a stage can be told: each field is an option of its tool, of a chain's step and of a recipe's section."""

    #: The field that the recipe's judge fills, where nobody is named in it.
    judge_field: ClassVar[str] = ""

    @property
    def wants_judge(self) -> bool:
        """Whether somebody must stand in `judge_field`."""
        return False

    @property
    def most_calls(self) -> int:
        """How many calls it comes to for one record, at most; 0 where that is a fixed few, whatever is said."""
        return 0

    @cached_property
    def planned(self) -> dict[str, Any]:
        """What a stage made of these options, the same for all records for which they hold; it keeps that here."""
        return {}


class FewShot(Settings):
    """Worked turns put before a short question: what makes a very small model answer in the wanted form."""

    turns: tuple[tuple[str, str], ...] = option(minimum=1)
    system: str | None = option(None)
    max_chars: int = option(160, minimum=1)
    unless: tuple[str, ...] = option(())
    max_tokens: int | None = option(None, minimum=1)
    samples: int | None = option(None, minimum=1, maximum=MOST_CALLS)
    temperature: float | None = option(None, minimum=0)
    jitter: float | None = option(None, minimum=0)


class RouteOptions(StageOptions):
    """What `fuse-route` can be told."""

    method: str = option(
        "heuristic", "--method",
        choices=("heuristic", "model", "command", "learned", "abstained", "always", "never"),
        help="Decide by rules, by a model, by a shell command, by a table of fuse-tune, by whether fuse-vote has "
        "abstained, or always or never fuse.",
    )  # fmt: skip
    models: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, most=1, model=True, metavar="MODEL[@ENDPOINT]",
        help="The model that decides (--method model).",
    )  # fmt: skip
    command: str | None = option(
        None, "--command", minimum=1, metavar="SHELL", private=True,
        help="A shell command that reads the record and prints `fuse`, `solo` or `solo TIER` (--method command).",
    )  # fmt: skip
    fast: Model | None = option(
        None, "--fast", model=True, metavar="MODEL[@ENDPOINT]", help="Who answers an easy question alone."
    )
    balanced: Model | None = option(
        None, "--balanced", model=True, metavar="MODEL[@ENDPOINT]", help="Who answers an ordinary question alone."
    )
    strong: Model | None = option(
        None, "--strong", model=True, metavar="MODEL[@ENDPOINT]", help="Who answers a demanding question alone."
    )
    min_chars: int = option(
        280, "--min-chars", minimum=1, metavar="N", help="A longer question is fused (--method heuristic)."
    )
    table: str | None = option(
        None, "--table", minimum=1, metavar="FILE", private=True,
        help="What kind of question gets which treatment, as fuse-tune wrote it (--method learned).",
    )  # fmt: skip


class PanelOptions(StageOptions):
    """What `fuse-panel` can be told."""

    judge_field: ClassVar[str] = "agree_models"
    members: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, model=True, metavar="MODEL[*N][@ENDPOINT]",
        help="A panel member; repeat for more. MODEL*3 asks it three times.",
    )  # fmt: skip
    samples: int = option(1, "--samples", minimum=1, maximum=MOST_CALLS, metavar="N", help="Ask every member N times.")
    temperature: float = option(0.7, "--temperature", minimum=0, metavar="T", help="The middle of the spread.")
    diversity: bool = option(
        True, "--diversity/--no-diversity", help="Spread the temperatures, so that the drafts differ."
    )
    jitter: float = option(0.3, "--jitter", minimum=0, metavar="T", help="How far the spread reaches to each side.")
    max_tokens: int | None = option(
        None, "--max-tokens", minimum=1, metavar="N", help="Longest response of a member, in tokens."
    )
    system: str | None = option(
        None, "--system", metavar="TEXT", private=True, help="A system prompt for every member."
    )
    quorum: int | None = option(
        None, "--quorum", minimum=1, metavar="K", help="Once K responses are in, wait only --grace longer."
    )
    grace_s: float = option(
        2.0, "--grace", minimum=0, metavar="S", help="Seconds that stragglers get after the quorum."
    )
    revise: bool = option(
        False, "--revise", recipe=False, help="The next layer: members see the earlier responses and answer anew."
    )
    debate: bool = option(
        False,
        "--debate",
        recipe=False,
        help="The next layer: each member sees its own response as its own, and revises it.",
    )
    sequential: bool = option(
        False,
        "--sequential",
        recipe=False,
        help="The next layer: fold the responses, --window of them at a time, into one.",
    )
    window: int = option(
        6, "--window", minimum=2, metavar="W", help="How many responses one step of --sequential reads."
    )
    first_call: bool = option(
        False, "--first-call", recipe=False,
        help="Cut off who still answers once a response proposes a tool call.",
    )  # fmt: skip
    scout: int | None = option(
        None, "--scout", minimum=2, metavar="K", help="Ask the first K only; the rest where those do not agree."
    )
    stop_when_agreed: bool = option(
        False, "--stop-when-agreed",
        help="Cut off who still answers once nobody can change the majority; add no layer to a panel that agrees.",
    )  # fmt: skip
    until: float | None = option(
        None, "--until", minimum=0.5, maximum=MOST_CERTAIN, metavar="P",
        help="Ask on, member by member, the cheapest first, until the answer with the most votes is the most frequent "
        "one with this probability.",
    )  # fmt: skip
    max_samples: int | None = option(
        None, "--max-samples", minimum=2, maximum=MOST_CALLS, metavar="N",
        help="The most responses that --until asks for; else each member as often as --samples says.",
    )  # fmt: skip
    at_once: int = option(
        1, "--at-once", minimum=1, maximum=MOST_CALLS, metavar="K",
        help="How many responses --until asks for at a time, at the least: more of them are quicker and spare less.",
    )  # fmt: skip
    agree: str = option(
        "auto", "--agree", minimum=1, metavar="HOW",
        help="What counts as agreement: a key of fuse-vote (auto, number, choice, text, json:PATH, regex:RE) or judge.",
    )  # fmt: skip
    agree_models: tuple[Model, ...] = option(
        (), "--agree-model", multiple=True, most=1, model=True, metavar="MODEL[@ENDPOINT]",
        help="Who judges for --agree judge.  [default: the recipe's judge]",
    )  # fmt: skip
    baselines: tuple[Model, ...] = option(
        (), "--baseline", multiple=True, model=True, metavar="MODEL[*N][@ENDPOINT]",
        help="Ask this model as well, like a member; no judge and no synthesizer sees it. For comparisons.",
    )  # fmt: skip
    tools: tuple[str, ...] = option(
        (), "--tools", multiple=True, metavar="NAME[,NAME…]",
        help="What members may use: web_search, web_fetch, bash, mcp:NAME.",
    )  # fmt: skip
    max_tool_calls: int = option(
        4, "--max-tool-calls", minimum=1, maximum=MOST_TOOL_CALLS, metavar="N",
        help="How many tools may be run for one response.",
    )  # fmt: skip
    web_search: bool = option(False, "--web-search", recipe=False, help="Short for --tools web_search,web_fetch.")
    template: str = option("default", "--template", metavar="NAME|PATH", private=True, help=TEMPLATE_HELP)
    prompt_cache: bool = option(
        False, "--prompt-cache", help="Let the first sample warm the endpoint's prompt cache before the rest start."
    )
    logprobs: bool = option(
        False, "--logprobs",
        help="Ask how likely each token was, for `fuse-vote --weights logprob` and --drop-lowest; not all can say.",
    )  # fmt: skip
    few_shot: FewShot | None = option(None, private=True)
    extra: Mapping[str, Any] | None = option(None, private=True)

    @property
    def wants_judge(self) -> bool:
        """Whether a judge says if the members agree."""
        return self.agree == "judge"

    @cached_property
    def adds_layer(self) -> bool:
        """Whether this goes on from a panel that stands."""
        return self.revise or self.debate or self.sequential

    def times_asked(self, member: Model, *, short: bool = False) -> int:
        """Return how many responses a member gives in a first layer, at most."""
        if self.max_samples is not None:
            return -(-self.max_samples * member.samples // sum(each.samples for each in self.members))
        return member.samples * (self.short_samples if short else self.samples)

    @cached_property
    def short_samples(self) -> int:
        """How often a member that is named once is asked a short question: the worked turns may say otherwise of it."""
        return (self.few_shot.samples if self.few_shot else None) or self.samples

    @property
    def most_responses(self) -> int:
        """How many responses a first layer has, at most."""
        return self.max_samples or sum(member.samples for member in self.members) * self._most_samples

    @property
    def most_calls(self) -> int:
        """How many calls a first layer makes, at most: one for each response, and the baselines'."""
        responses = self.most_responses + sum(model.samples for model in self.baselines) * self._most_samples
        return responses * self.most_rounds

    @property
    def most_rounds(self) -> int:
        """How often a member is called for one response: once, and after each run of a tool again."""
        has_tools = self.tools or any(model.tools for model in (*self.members, *self.baselines))
        return 1 + self.max_tool_calls if has_tools else 1

    @property
    def _most_samples(self) -> int:
        return max(self.samples, self.short_samples)

    def layer_calls(self, responses: int) -> int:
        """Return how many calls a later layer makes over so many responses, at most."""
        if self.sequential:
            return len(self.members) * self.folds(responses) * self.most_rounds
        return max(responses, sum(member.samples for member in self.members) * self.samples) * self.most_rounds

    def folds(self, responses: int) -> int:
        """Return in how many steps `--sequential` reads so many responses."""
        return max(1, -(-(responses - 1) // (self.window - 1)))


class JudgeOptions(StageOptions):
    """What `fuse-judge` can be told."""

    models: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, model=True, metavar="MODEL[@ENDPOINT]",
        help="The judge; repeat for a panel of judges, whose analyses are merged.",
    )  # fmt: skip
    method: str = option(
        "model", "--method", choices=("model", "lexical"), help="Compare by a model, or by code without any call."
    )
    tools: tuple[str, ...] = option(
        (), "--tools", multiple=True, metavar="NAME[,NAME…]",
        help="What a judge may use to check claims: web_search, web_fetch, bash, mcp:NAME.",
    )  # fmt: skip
    max_tool_calls: int = option(
        4, "--max-tool-calls", minimum=1, maximum=MOST_TOOL_CALLS, metavar="N",
        help="How many tools may be run for one analysis.",
    )  # fmt: skip
    swap: bool = option(
        False, "--swap", help="Let every judge read the responses in both orders; say where its verdicts differ."
    )
    claims: bool = option(
        False, "--claims/--no-claims",
        help="Take the responses apart into claims, too: who holds each, in which words, and who contradicts it.",
    )  # fmt: skip
    template: str = option("default", "--template", metavar="NAME|PATH", private=True, help=TEMPLATE_HELP)
    temperature: float = option(0.0, "--temperature", minimum=0, metavar="T", help="The judge's temperature.")
    max_tokens: int | None = option(None, "--max-tokens", minimum=1, metavar="N", help="Longest analysis, in tokens.")

    @property
    def most_calls(self) -> int:
        """How many analyses are asked for."""
        return len(self.models) * (2 if self.swap else 1) * (1 + self.max_tool_calls if self.tools else 1)


class SynthOptions(StageOptions):
    """What `fuse-synth` can be told."""

    judge_field: ClassVar[str] = "guard_models"
    models: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, most=1, model=True, metavar="MODEL[@ENDPOINT]", help="The synthesizer."
    )  # fmt: skip
    method: str = option(
        "model", "--method", choices=("model", "copy", "call", "auto"),
        help="Write with the model, copy the best response, copy the first that proposes a tool call (else the best), "
        "or copy short responses and write long ones.",
    )  # fmt: skip
    top: int | None = option(None, "--top", minimum=1, metavar="K", help="Fuse the K best responses only.")
    min_support: int | None = option(
        None, "--min-support", minimum=1, maximum=MOST_CALLS, metavar="K",
        help="Build on claims that K responses hold, and mark the others as contested (see fuse-judge --claims).",
    )  # fmt: skip
    refine: bool = option(
        False,
        "--refine/--no-refine",
        help="One more pass of self-critique over the answer; writes one first where none stands.",
    )
    guard: bool = option(
        False,
        "--guard/--no-guard",
        help="Let a blind judge compare the answer with the best single response; keep the better.",
    )
    guard_models: tuple[Model, ...] = option(
        (), "--guard-model", multiple=True, most=1, model=True, metavar="MODEL[@ENDPOINT]",
        help="Who judges for --guard.  [default: the recipe's judge]",
    )  # fmt: skip
    template: str = option("default", "--template", metavar="NAME|PATH", private=True, help=TEMPLATE_HELP)
    temperature: float | None = option(
        None, "--temperature", minimum=0, metavar="T", help="The synthesizer's temperature."
    )
    max_tokens: int | None = option(None, "--max-tokens", minimum=1, metavar="N", help="Longest answer, in tokens.")
    extra: Mapping[str, Any] | None = option(None, private=True)

    @property
    def wants_judge(self) -> bool:
        """Whether a judge guards the answer."""
        return self.guard


class VoteOptions(StageOptions):
    """What `fuse-vote` can be told."""

    key: str = option("auto", "--key", minimum=1, metavar="KEY", help=KEY_HELP)
    weights: Mapping[str, float] | None = option(
        None, "--weight", multiple=True, minimum=0, maximum=MOST_WEIGHT, metavar="MEMBER=W",
        help="What a member's vote counts; repeat for more.",
    )  # fmt: skip
    weighing: str = option(
        "given", "--weights", choices=("given", "learned", "logprob"),
        help="What counts: --weight; what fuse-tune has learned and its recipe brings; or --weight times how sure a "
        "member was, beside its other responses.",
    )  # fmt: skip
    learned: Mapping[str, float] | None = option(None, minimum=0, maximum=MOST_WEIGHT)
    drop_lowest: float = option(
        0.0, "--drop-lowest", minimum=0, maximum=0.99, metavar="SHARE",
        help="Leave out this share of each member's responses, those of which it was least sure.",
    )  # fmt: skip
    threshold: str | None = option(
        None, "--threshold", metavar="FILE", private=True, recipe=False,
        help="Answer only where so many agree as fuse-calibrate found necessary; else say `abstained`.",
    )  # fmt: skip

    @property
    def wants_logprobs(self) -> bool:
        """Whether it counts by log probabilities, which the panel must have asked for."""
        return self.weighing == "logprob" or self.drop_lowest > 0


class PickOptions(StageOptions):
    """What `fuse-pick` can be told."""

    judge_field: ClassVar[str] = "models"
    models: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, most=1, model=True, metavar="MODEL[@ENDPOINT]",
        help="Who compares.  [default: the recipe's judge]",
    )  # fmt: skip
    pairwise: bool = option(False, "--pairwise", help="Ask for every pair which response is better, in both orders.")
    consistent: bool = option(
        False, "--consistent", help="Ask which response agrees most with all (universal self-consistency)."
    )
    template: str = option("default", "--template", metavar="NAME|PATH", private=True, help=TEMPLATE_HELP)
    temperature: float = option(0.0, "--temperature", minimum=0, metavar="T", help="The comparing model's temperature.")
    max_tokens: int | None = option(None, "--max-tokens", minimum=1, metavar="N", help="Longest verdict, in tokens.")
    # What runs on this machine is said by whoever types it: no recipe's section has it, and no record.
    check: str | None = option(
        None, "--check", minimum=1, metavar="COMMAND", recipe=False, private=True,
        help="Take what this shell command passes with exit 0; a response's program, else its text, is its input.",
    )  # fmt: skip
    check_files: tuple[str, ...] = option(
        (), "--check-with", multiple=True, metavar="PATH", recipe=False, private=True,
        help="A file or folder that the command finds beside the response; repeat for more.",
    )  # fmt: skip
    check_s: float = option(
        30.0, "--check-timeout", minimum=0.1, maximum=3600, metavar="S", recipe=False,
        help="Longest time for one response.",
    )  # fmt: skip
    check_retries: int = option(
        0, "--check-retry", minimum=0, maximum=8, metavar="N", recipe=False,
        help="Where no response passes, show each member what the command said of its own, and ask again, N times.",
    )  # fmt: skip
    #: Who sat on the panel, where they may be asked again.
    panellists: tuple[Model, ...] = option((), multiple=True, model=True, recipe=False)

    @property
    def wants_judge(self) -> bool:
        """Who picks is asked as a judge is."""
        return self.check is None

    @property
    def wants_members(self) -> bool:
        """Whether members may be asked again."""
        return self.check_retries > 0


class LimitOptions(Settings):
    """What bounds every call and every run."""

    HEADING: ClassVar[str] = "Calls and limits"

    timeout_s: float = option(120.0, "--timeout", minimum=0.001, metavar="S", help="Longest wait for one call.")
    deadline_s: float = option(600.0, "--deadline", minimum=0.001, metavar="S", help="Longest time for one record.")
    retries: int = option(2, "--retries", minimum=0, metavar="N", help="Tries after the first, where a retry can help.")
    backoff_s: float = option(0.5, "--backoff", minimum=0, metavar="S", help="First wait between tries; it doubles.")
    hedge_s: float | None = option(
        None, "--hedge", minimum=0, metavar="S",
        help="Ask a model's first fallback too where it has not begun to answer after S seconds; the first one wins.",
    )  # fmt: skip
    max_concurrency: int = option(
        256, "--max-concurrency", minimum=1, metavar="N", help="Calls in flight at once, over all records."
    )
    max_cost_usd: float | None = option(
        None, "--max-cost-usd", minimum=0, metavar="USD", help="Stop the run before it costs more (exit 4)."
    )
    max_record_cost_usd: float | None = option(
        None, "--max-record-cost-usd", minimum=0, metavar="USD", help="Refuse calls past this cost for one record."
    )


class JournalOptions(Settings):
    """Which calls are answered from disk, and where finished calls are kept."""

    HEADING: ClassVar[str] = "Journal"

    replay: bool = option(False, "--replay", help="Answer from the journal what it holds; buy the rest.")
    offline: bool = option(False, "--offline", help="Answer from the journal only; a miss is a failed call.")
    journal: str | None = option(None, "--journal", metavar="PATH", help="The journal's file.")
    no_journal: bool = option(False, "--no-journal", help="Keep nothing on disk.")
    state: str | None = option(
        None, "--state", metavar="URL", private=True,
        help="Share calls, limits and budgets: redis://…, postgresql://…, sqlite:PATH; a password belongs in "
        "$FUSION_STATE.",
    )  # fmt: skip
    budget: str | None = option(
        None, "--budget", metavar="NAME", minimum=1,
        help="Count --max-cost-usd together with all runs that name this budget.",
    )  # fmt: skip


class BatchOptions(Settings):
    """Whether calls are sent as batch jobs, at about half the price."""

    HEADING: ClassVar[str] = "Batch jobs"

    batch: str | None = option(
        None, "--batch", choices=("submit", "collect", "wait"), bare="wait",
        help="Send calls as the provider's batch jobs, at about half the price: submit them (exit 75: come again), "
        "collect what is ready, or wait for all.  [without a value: wait]",
    )  # fmt: skip
    or_buy_s: float | None = option(
        None, "--batch-or-buy", minimum=0, metavar="S",
        help="Cancel a job that is not done S seconds after it was submitted, and buy what it lacks at once.",
    )  # fmt: skip


class StreamOptions(Settings):
    """How records come in and leave."""

    HEADING: ClassVar[str] = "Output"

    output: str | None = option(
        None, "-o", "--output", choices=("text", "jsonl"), help="Text on a terminal, else JSON Lines."
    )
    verbose: bool = option(False, "-v", "--verbose", help="In text, show responses and analysis too.")
    plain: bool = option(False, "--plain", help="On a terminal too, the answer as the model wrote it.")
    quiet: bool = option(False, "-q", "--quiet", help="No progress, no notes; errors only.")
    strict: bool = option(False, "--strict", help="Exit 1 where any record is degraded by this tool.")
    jobs: int = option(8, "-j", "--jobs", minimum=1, metavar="N", help="Records worked on at once.")
    unordered: bool = option(False, "--unordered", help="Let records leave as they finish.")
    rejects: str | None = option(None, "--rejects", metavar="FILE", help="Write lines that cannot be used to FILE.")
    max_line_mib: float = option(32.0, "--max-line-mib", minimum=0.0001, metavar="MIB", help="Refuse longer lines.")


class InputOptions(Settings):
    """How plain text is read; only by tools that read a question."""

    HEADING: ClassVar[str] = "Question"

    lines: bool = option(False, "--lines", help="Every line of plain text is a question.")
    text: bool = option(False, "--text", help="All of the input is one question, even where it begins with `{`.")
    evidence: tuple[str, ...] = option((), "--evidence", multiple=True, metavar="FILE", help=EVIDENCE_HELP)


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage as all the others need to know it: its code is `stages/NAME.py`, its tool `fuse-NAME`.

    Args:
        options: what it can be told.
        adds: the section of the record that it makes.
        needs: the section that it reads and does not make, and the tool that makes it.
        calls_models: whether it asks any; then its tool has limits and a journal.
        kept: when the recipe in a record keeps what this stage is told: always, where anything was said, or never.
    """

    options: type[StageOptions]
    adds: str
    needs: tuple[str, str] | None = None
    calls_models: bool = False
    kept: Literal["always", "said", "never"] = "said"


_PANEL = ("panel", "fuse-panel")
#: The stages that a chain is made of. What else lists stages is read from here, or a test holds it to this.
STAGES: Mapping[str, StageSpec] = {
    # The router decides before there is a record to keep anything.
    "route": StageSpec(RouteOptions, "route", calls_models=True, kept="never"),
    "panel": StageSpec(PanelOptions, "panel", calls_models=True, kept="always"),
    "judge": StageSpec(JudgeOptions, "analysis", _PANEL, calls_models=True, kept="always"),
    "synth": StageSpec(SynthOptions, "answer", _PANEL, calls_models=True, kept="always"),
    "vote": StageSpec(VoteOptions, "answer", _PANEL),
    "pick": StageSpec(PickOptions, "answer", _PANEL, calls_models=True),
}
#: Those that write an answer.
ANSWERING = tuple(name for name, spec in STAGES.items() if spec.adds == "answer")
#: What concerns a run, and no stage of it.
RUN_GROUPS = (ToolOptions, LimitOptions, JournalOptions, StreamOptions, InputOptions)
