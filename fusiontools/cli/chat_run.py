"""A conversation at work: what is typed becomes a turn or a command, a turn becomes a record."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.cli.ask_command import AskedOptions, bind_chain, compacted, continued, read_question, with_wishes
from fusiontools.cli.ask_run import Asking, LiveAnswer, ask_once, keep_turn, run_turn, show_record
from fusiontools.cli.command import complain
from fusiontools.cli.given import Part, attachment, file_text, looks_seen, read_evidence, with_evidence, with_given
from fusiontools.cli.io import is_colour_welcome, write_or_leave
from fusiontools.cli.setup import make_client, named_recipe
from fusiontools.cli.text import Paint
from fusiontools.config.models import LOCAL
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import chosen_by_person
from fusiontools.config.resolve import check_calls, missing_keys
from fusiontools.errors import EXIT_OK, FusionError, UsageError, install_line
from fusiontools.record.clean import clean
from fusiontools.record.sections import text_of
from fusiontools.record.types import Message, Record
from fusiontools.runs.compaction import split_summary
from fusiontools.runs.session import CHAT, LAST, Session, conversation, list_sessions, new_session, sessions_dir
from fusiontools.runs.turn import ChatTurn, with_system_prompt

TOOL = "fuse-chat"
_HISTORY = "chat_history"
_PASTED = "OPENROUTER_API_KEY"


class Setting(Struct, frozen=True):
    """How the conversation was begun: what was typed, group by group."""

    options: AskedOptions
    config: str | None
    tool: Mapping[str, Any]
    limit: Mapping[str, Any]
    journal: Mapping[str, Any]


class Commands(Struct, frozen=True):
    """What may be typed beside questions.

    Args:
        about: each command, with a few words about it.
        obey: does what a line says; returns whether the person leaves.
        values: what may stand behind a command; None for the name of a file.
    """

    about: Mapping[str, str]
    obey: Callable[[ChatLoop, str], Awaitable[bool]]
    values: Callable[[ChatLoop, str], Iterable[str] | None]


class ChatLoop:
    """One conversation.

    Args:
        session: where it is kept; None keeps it in memory.
    """

    def __init__(self, setting: Setting, session: Session | None) -> None:
        self.setting = setting
        self.options = setting.options
        self.config = setting.config
        self.kept = session is not None
        self.session = session or new_session()
        #: The last turn, answered or not; and what was asked in it, before anything was made shorter.
        self.last: Record | None = self.session.records[-1] if self.session.records else None
        self.asked: list[Message] = list(self.last["messages"]) if self.last else []
        self.system = self.options.system
        #: What each record has beside the conversation.
        self.beside: Any = {"params": {"max_tokens": self.options.max_tokens}} if self.options.max_tokens else {}
        #: What goes with the next question: a name, and a text or what is to be seen.
        self.attached: list[tuple[str, str | Part]] = []
        #: What stands in the prompt to be changed, when the last question is to be put differently.
        self.editing: str | None = None
        self.paint = Paint(is_colour_welcome())
        self.recipe = self._load(setting.config)
        self.stage = self.bind(self.options, self.recipe)
        self.asking = Asking(
            TOOL, False, plain=self.options.plain, verbose=False, quiet=self.options.quiet, strict=False,
            replayable=not setting.journal.get("no_journal"),
        )  # fmt: skip
        self._spent_usd = 0.0
        self.client: Any = None

    # --- The recipe ---

    def _load(self, config: str | None) -> Recipe:
        typed = bool(self.options.models or self.options.chain)
        recipe = named_recipe(config, TOOL, self.setting.journal, typed=typed, quiet=self.options.quiet)
        check_calls(recipe)
        recipe = compacted(recipe, self.options)
        assert isinstance(recipe, Recipe)  # noqa: S101 - for the type checker
        return recipe

    def bind(self, options: AskedOptions, recipe: Recipe) -> Any:
        """Return the chain as one stage.

        Raises:
            UsageError: it cannot be.
        """
        limited = bool({"max_cost_usd", "max_record_cost_usd"} & self.setting.limit.keys())
        offline = bool(self.setting.journal.get("offline"))
        return bind_chain(options, recipe, binding=self.config is not None, offline=offline, limited=limited)

    async def use(self, config: str | None, **changed: Any) -> None:
        """Go on with another recipe, or with other options of its chain.

        Raises:
            UsageError: there is no such recipe, or it cannot be; everything stays as it was then.
        """
        options, before = self.options.replace(**changed), self.config
        self.config = config
        try:
            recipe = self._load(config)
            stage = self.bind(options, recipe)
        except UsageError:
            self.config = before
            raise
        self.recipe, self.stage, self.options = recipe, stage, options
        await self._close_client()

    def _open_client(self) -> Any:
        """Return the way to the models; what the conversation may cost holds over all of its recipes."""
        if self.client is None:
            limit = dict(self.setting.limit)
            if limit.get("max_cost_usd") is not None and "budget" not in self.setting.journal:
                limit["max_cost_usd"] = max(0.0, limit["max_cost_usd"] - self._spent_usd)
            self.client = make_client(self.recipe, limit, self.setting.journal, TOOL, self.setting.tool)()
        return self.client

    async def _close_client(self) -> None:
        if self.client is not None:
            self._spent_usd += await self.client.budget.committed_usd()
            await self.client.aclose()
            self.client = None

    # --- One answer ---

    async def answer_once(self, words: Sequence[str]) -> int:
        """Answer one question, in plain text; return the exit status."""
        question = with_wishes(read_question(tuple(words), self.options, TOOL), self.options)
        record = continued(question, self.session)
        session = self.session if self.kept else None
        client = make_client(self.recipe, self.setting.limit, self.setting.journal, TOOL, self.setting.tool)
        return await ask_once(record, self.stage, client, replace(self.asking, plain=True), session)

    # --- The conversation ---

    async def run(self, words: Sequence[str], commands: Commands) -> int:
        """Talk until the person leaves; return the exit status."""
        try:
            from fusiontools.cli.chat_input import LineEditor, keeping_typed_text
        except ImportError as error:
            raise UsageError(f"a conversation needs prompt_toolkit: {install_line('chat')}") from error
        question = self._take_options(words)
        history = sessions_dir().parent / _HISTORY if self.kept else None
        prompt = LineEditor(commands.about, lambda name: commands.values(self, name), history)
        # Between an answer and the prompt nothing is there to be stopped.
        signal.signal(signal.SIGINT, lambda *_: None)
        with keeping_typed_text():
            await self._talk(question, prompt, commands)
        await self._close_client()
        if self.kept and self.session.records:
            self.aside(f"kept: fuse-chat --continue {self.session.id}")
        self.session.close()
        return EXIT_OK

    def _take_options(self, words: Sequence[str]) -> Message | None:
        """Take what was typed beside a question; return the question, where there is one.

        Raises:
            UsageError: a file cannot be read, or the question cannot be.
        """
        self.beside = with_evidence(self.beside, read_evidence(self.options.evidence))
        self.attached += [(Path(path).name, file_text(path)) for path in self.options.texts]
        self.attached += [(_name_of(place), attachment(place)) for place in self.options.attachments]
        if not (words or self.options.template):
            return None
        told: list[Message]
        question: Message
        *told, question = read_question(tuple(words), self.options, TOOL)["messages"]
        if told and self.system is None:
            self.system = text_of(told[0])
        return question

    async def _talk(self, question: Message | None, prompt: Any, commands: Commands) -> None:
        await self._greet(prompt)
        if question is not None:
            await self._ask(question)
        leaving = False
        while True:
            if self.last is not None and not leaving:
                self.say("\n")
            try:
                text = await prompt.ask(self._before(), self.editing or "")
            except KeyboardInterrupt:
                if leaving:
                    break
                leaving = True
                self.editing = None
                self.aside("Ctrl-C again or Ctrl-D leaves; what was typed is in the history")
                continue
            except EOFError:
                break
            leaving = False
            try:
                if await self._take(text, commands):
                    break
            except FusionError as error:
                complain(TOOL, error.message)

    async def _take(self, text: str, commands: Commands) -> bool:
        """Do what was typed; return whether the person leaves."""
        if text.startswith("/") and not text.startswith("//"):
            return await commands.obey(self, text)
        text = text.removeprefix("/") if text.startswith("//") else text
        if not text.strip():
            self.editing = None
            return False
        text, before = text.strip(), None
        if self.editing is not None:
            # What a summary says of earlier turns stays with the question.
            text, before = split_summary(text_of(self.asked[-1]))[0] + text, self.asked[:-1]
            self.editing = None
        await self._ask({"role": "user", "content": text}, before)
        return False

    async def _ask(self, message: Message, before: list[Message] | None = None) -> None:
        """Ask with what is attached."""
        texts = [given for _, given in self.attached if isinstance(given, str)]
        parts = [given for _, given in self.attached if not isinstance(given, str)]
        self.attached.clear()
        await self.turn(with_given(message, texts, parts), before=before)

    def _before(self) -> str:
        return "".join(f"[{name}] " for name, _ in self.attached) + "> "

    async def turn(self, message: Message, *, before: list[Message] | None = None, stage: Any = None) -> None:
        """Ask, show and keep one turn.

        Args:
            before: what was said until then, where that is not the conversation as it stands.
            stage: the chain, where it is another one for this turn alone.
        """
        from fusiontools.cli.view import View

        messages = [*(self.session.messages if before is None else before), message]
        self.asked = with_system_prompt(messages, self.system)
        record: Any = {**self.beside, "id": self.session.next_id(), "messages": self.asked}
        view = None if self.options.quiet else View()
        shown = LiveAnswer(view, self.asking)
        turn = ChatTurn(record, shown.take)
        done, told = await run_turn(turn, stage or self.stage, self._open_client(), view, TOOL)
        if view is not None:
            view.close()
        self.last = done
        if self.kept:
            keep_turn(done, self.session, self.asking)
        else:
            self.session.take(done)
        if told:
            shown.finish()
            self.aside("\nstopped; what stands above is kept and sent on" if "answer" in done else "\nstopped")
        else:
            show_record(done, self.asking, shown, seen=view is not None)
        if view is not None and not told:
            view.sum_up(done)
        if self.client.budget.stopped:
            complain(TOOL, "the budget is spent (--max-cost-usd): nothing more is asked")

    # --- Around it ---

    def attach(self, place: str) -> str:
        """Let a file or an address go with the next question; return what it is called.

        Raises:
            UsageError: it cannot be read.
        """
        place = str(Path(place).expanduser()) if place.startswith("~") else place
        given: str | Part = attachment(place, "/attach") if looks_seen(place) else file_text(place, "/attach")
        self.attached.append((_name_of(place), given))
        return _name_of(place)

    def say(self, text: str) -> None:
        """Write lines for the person."""
        if text:
            write_or_leave(TOOL, f"{clean(text).rstrip()}\n".encode("utf-8", "replace"))

    def aside(self, text: str) -> None:
        """Write a remark of ours."""
        if not self.options.quiet:
            write_or_leave(TOOL, f"{self.paint.aside(clean(text))}\n".encode("utf-8", "replace"))

    async def _greet(self, prompt: Any) -> None:
        """Say what answers, and where one is; on a first run without a key, ask for one."""
        chosen = self.config or self.options.models or self.options.chain or chosen_by_person()
        if not chosen and self.recipe.name == LOCAL and all(kept.id == LAST for kept in list_sessions((CHAT,))):
            await self._offer_key(prompt)
        for warning in missing_keys(self.recipe, bool(self.setting.journal.get("offline"))):
            complain(TOOL, f"warning: {warning}")
        going_on = f", {len(self.session.records)} turns so far" if self.session.records else ""
        self.aside(f"{self.recipe.name}: {self.options.chain or self.recipe.chain}{going_on}  (/help, Ctrl-D leaves)")
        if (last := self.session.last) is not None:
            self.say(f"\n> {_beginning(last['messages'][-1])}\n\n{conversation(last)[-1]['content']}\n")

    async def _offer_key(self, prompt: Any) -> None:
        from fusiontools.config.api_keys import keep_key

        self.say(
            "No key is set, so the embedded model answers: a small one, made for trying out.\n"
            "With a key of OpenRouter (https://openrouter.ai/keys) a panel of strong models\n"
            "does. Paste one to keep it, or press Enter to go on without. For other\n"
            "endpoints: fuse-doctor --set-key NAME."
        )
        try:
            key = (await prompt.ask_secret("key: ")).strip()
        except (EOFError, KeyboardInterrupt):
            key = ""
        if key:
            try:
                place = keep_key(_PASTED, key)
            except UsageError as error:
                complain(TOOL, error.message)
                return
            self.aside(f"kept in {place}")
            await self.use(None)


def _name_of(place: str) -> str:
    return place.rpartition("/")[2] or place


def _beginning(message: Message) -> str:
    words = " ".join(split_summary(text_of(message))[1].split())
    return words if len(words) <= 200 else words[:199] + "…"
