"""Which calls a panel makes for a record: members × samples, their prompts, their parameters.

The first layer asks the question. A later one shows every member the responses so far, blind and in an order of its
own. A record that was routed to one model alone has one call, with the parameters of a visible answer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config.models import Model, model_from
from fusiontools.config.stage_table import FewShot, PanelOptions
from fusiontools.config.templates import load_template
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.ledger import Slot
from fusiontools.llm.prices import per_token_usd
from fusiontools.record.params import ANSWER, MEMBER, select_params
from fusiontools.record.sections import digest, is_solo, question_text
from fusiontools.record.types import Message, Record
from fusiontools.stages import prompts
from fusiontools.stages.prompts import with_system
from fusiontools.stages.runtime import Runtime

if TYPE_CHECKING:
    from fusiontools.stages.tool_loop import ToolWish
    from fusiontools.tools.tool import ToolResult


class Seat(Struct, frozen=True):
    """A member's place in a layer.

    Args:
        slot: as its calls are entered and shown.
    """

    model: Model
    sample: int
    layer: int
    slot: Slot


class FirstLayer(NamedTuple):
    #: Each with its temperature, and with what it is sent where the record has no parameters of its own.
    seats: list[tuple[Seat, float, dict[str, Any]]]
    #: For each system prompt of their own a member that has it.
    asked: dict[str | None, Model]


class PlannedCall(Struct, frozen=True):
    """One call that the panel will make."""

    seat: Seat
    request: CompletionRequest
    wish: ToolWish | None = None


class PanelPlanner(Struct, frozen=True):
    """Plans the calls of one record's panel."""

    record: Record
    options: PanelOptions
    runtime: Runtime
    #: What the tools of this record gave, for all its members.
    memory: dict[bytes, ToolResult] = {}

    def first(self) -> list[PlannedCall]:
        """Return the calls of the first layer, in recipe order (`--until`: in turns); the one call of a solo record."""
        short = _is_short(self.record, self.options.few_shot)
        few_shot = self.options.few_shot if short else None
        if is_solo(self.record):
            return [self._solo(few_shot)]
        kind = "short" if short else "first"
        layer: FirstLayer | None = self.options.planned.get(kind)
        if layer is None:
            layer = self.options.planned[kind] = seat_first(self._cheapest_first(), short)
        # Members without a system prompt of their own are asked the same.
        shown = {system: self._prompt(model, few_shot) for system, model in layer.asked.items()}
        asked = self.record.get("params")
        return [
            self._call(
                seat,
                shown[seat.model.system],
                self._params(seat.model, few_shot, temperature) if asked else params,
            )
            for seat, temperature, params in layer.seats
        ]

    def _cheapest_first(self) -> PanelOptions:
        """Return the options, for `--until` with the members by what their tokens cost; unknown prices come last."""
        if self.options.until is None:
            return self.options
        known = self.runtime.client.endpoints

        def price(member: Model) -> float:
            endpoint = known.get(member.endpoint)
            costs = per_token_usd(endpoint, member) if endpoint is not None else None
            return math.inf if costs is None else sum(costs.values())

        return self.options.replace(members=tuple(sorted(self.options.members, key=price)))

    def layer(self) -> list[PlannedCall]:
        """Return the calls of the next layer: whoever sits on the panel is asked again, with the responses so far."""
        seats = self._seats()
        return [
            self.revision(seat, *self._seen_by(seat), temperature)
            for seat, temperature in zip(seats, _spread_temperatures(seats, self.options, None), strict=True)
        ]

    def layer_seats(self) -> list[Seat]:
        """Return a seat for every call that the next layer takes; who folds is called once for each window."""
        if not self.options.sequential:
            return self._seats()
        usable = sum("error" not in response for response in self.record["panel"])
        return [seat for seat, _ in self.folders() for _ in range(self.options.folds(usable))]

    def folders(self) -> list[tuple[Seat, float]]:
        """Return who folds the responses into one: each member once, at its temperature."""
        layer = next_layer(self.record)
        seats = [_seat(model, 0, layer, self.options.times_asked(model)) for model in self.options.members]
        return list(zip(seats, _spread_temperatures(seats, self.options, None), strict=True))

    def revision(self, seat: Seat, asked: str, texts: dict[str, str], own: str, temperature: float) -> PlannedCall:
        """Return the call that shows texts after the conversation and asks for the answer anew.

        Args:
            asked: `revise` or `debate`: the prompt's sections.
            texts: from label to text, in the order shown.
            own: the member's own earlier response, in a debate.
        """
        sections = load_template(self.options.template)
        mark = prompts.mark_for(asked, self.record, [own, *texts.values()])
        values = {
            "nonce": mark,
            "own": prompts.fence("YOUR RESPONSE", own, mark),
            "responses": prompts.fence_texts(texts, mark) if texts else "(There are no other responses.)",
        }
        turn: Message = {"role": "user", "content": prompts.fill(sections[f"{asked} user"], values)}
        own_system = seat.model.system or self.options.system
        system = "\n\n".join(filter(None, (own_system, sections[f"{asked} system"])))
        before = with_system(prompts.with_evidence(self.record, mark), system)
        params = self._params(seat.model, None, temperature)
        return self._call(seat, prompts.Prompt([*before, turn], mark), params, shared=len(before))

    def _seats(self) -> list[Seat]:
        """Return who is asked in a later layer: those on the panel, else, where others are named, these."""
        layer, panel = next_layer(self.record), self.record["panel"]
        members = {model.name: model for model in self.options.members}
        if all(response["member"] in members for response in panel):
            seated = [(members[response["member"]], response["sample"]) for response in panel]
            return [_seat(member, sample, layer, self.options.times_asked(member)) for member, sample in seated]
        return _seats_of(self.options, layer)

    def _seen_by(self, seat: Seat) -> tuple[str, dict[str, str], str]:
        """Return what a member is asked for, and the responses it sees; in a debate its own stands apart."""
        panel = self.record["panel"]
        usable = {i: response for i, response in enumerate(panel) if "error" not in response}
        own = next((i for i, r in usable.items() if (r["member"], r["sample"]) == (seat.model.name, seat.sample)), None)
        apart = own if self.options.debate else None
        shown = [i for i in usable if i != apart]
        labels = prompts.shown_to(self.record["id"], shown, f"{seat.model.name}#{seat.sample}/{seat.layer}")
        texts = {label: prompts.response_text(panel[i]) for label, i in labels.items()}
        return ("revise", texts, "") if apart is None else ("debate", texts, prompts.response_text(panel[apart]))

    def _solo(self, few_shot: FewShot | None) -> PlannedCall:
        """Return the one call of a solo record: it writes the visible answer, so the asker's parameters are its own."""
        model = model_from(self.record["route"]["model"])
        if self.runtime.limited:
            # No price that a record brings along may lift a limit; the recipe's and the price list's hold.
            same = [m for m in self.options.members if (m.model, m.endpoint) == (model.model, model.endpoint)]
            model = replace(model, price_usd_per_mtok=same[0].price_usd_per_mtok if same else None)
        params = self._params(model, few_shot, model.temperature)
        wanted = select_params(self.record.get("params", {}), ANSWER)
        return self._call(_seat(model, 0, 1, 1), self._prompt(model, few_shot), params | wanted)

    def _call(
        self, seat: Seat, prompt: prompts.Prompt, params: dict[str, Any], shared: int | None = None
    ) -> PlannedCall:
        """Return one call; `shared` leading messages stand in other calls too, all of them by default."""
        model, sample, layer = seat.model, seat.sample, seat.layer
        endpoint = self.runtime.client.endpoints.get(model.endpoint)
        if endpoint is not None and endpoint.embedded:
            # The embedded engine is deterministic by seed: the same question gives the same panel on every run.
            later = [] if layer == 1 else [str(layer)]
            params = {"seed": digest("seed", self.record["id"], model.name, str(sample), *later), **params}
        wish = None
        names = self.options.tools if model.tools is None else model.tools
        if names and not (endpoint is not None and endpoint.embedded):  # the embedded model can use none
            from fusiontools.stages.tool_loop import ToolWish

            wish = ToolWish(self.record, names, self.options.max_tool_calls, self.memory)
            ruled = prompts.with_tool_rules(prompt.messages, self.options.template)
            shared = None if shared is None else shared + len(ruled) - len(prompt.messages)
            prompt = prompts.Prompt(ruled, prompt.mark)
        cached = 0
        if self.options.prompt_cache and endpoint is not None and endpoint.caches_prompts(model.model):
            cached = len(prompt.messages) if shared is None else shared
        marks = (prompt.mark,) if prompt.mark else ()
        asked = (model.endpoint, model.model, prompt.messages, params, sample, cached, marks, self.options.logprobs)
        return PlannedCall(seat, CompletionRequest(*asked), wish)

    def _prompt(self, model: Model, few_shot: FewShot | None) -> prompts.Prompt:
        asked, mark = self.record["messages"], ""
        if self.record.get("evidence"):
            mark = prompts.evidence_mark(self.record)
            asked = prompts.with_evidence(self.record, mark)
        system = model.system or self.options.system
        if few_shot is None:
            return prompts.Prompt(with_system(asked, system) if system else asked, mark)
        turns: list[Message] = []
        for user, assistant in few_shot.turns:
            turns += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        system = model.system or few_shot.system or self.options.system
        return prompts.Prompt(with_system([*turns, *asked], system), mark)

    def _params(self, model: Model, few_shot: FewShot | None, temperature: float | None) -> dict[str, Any]:
        return params_of(self.options, model, few_shot, temperature, self.record.get("params"))


def params_of(
    options: PanelOptions,
    model: Model,
    few_shot: FewShot | None,
    temperature: float | None,
    asked: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the parameters of a member's call, of which a record may have `asked` for some."""
    params: dict[str, Any] = {
        "temperature": temperature,
        "top_p": model.top_p,
        "max_tokens": model.max_tokens or (few_shot.max_tokens if few_shot else None) or options.max_tokens,
        "reasoning_effort": model.reasoning_effort,
        **(select_params(asked, MEMBER) if asked else {}),
        **(options.extra or {}),
        **model.extra,
    }
    return {name: value for name, value in params.items() if value is not None}


def seat_first(options: PanelOptions, short: bool) -> FirstLayer:
    """Return who is asked first; the same for every record, short or not, for which the same options hold."""
    if options.until is not None:
        return _seat_in_turns(options, short)
    seats = _seats_of(options, 1, short=short)
    few_shot = options.few_shot if short else None
    heats = _spread_temperatures(seats, options, few_shot)
    sent = [params_of(options, seat.model, few_shot, heat) for seat, heat in zip(seats, heats, strict=True)]
    return FirstLayer(list(zip(seats, heats, sent, strict=True)), {seat.model.system: seat.model for seat in seats})


def _seat_in_turns(options: PanelOptions, short: bool) -> FirstLayer:
    """Return who is asked one after the other: every member once, then every member again.

    A sample's temperature goes by its number alone, and the first few are spread like all of them: a member asked on
    is asked nothing that it would not have been asked otherwise, and the journal knows its samples whatever the most
    is.
    """
    turn = [member for member in options.members for _ in range(member.samples)]
    count = options.max_samples or len(turn) * (options.short_samples if short else options.samples)
    asked = list(islice(cycle(turn), count))
    few_shot = options.few_shot if short else None
    middle, jitter = _heat(options, few_shot)
    times = Counter(member.name for member in asked)
    numbers: Counter[str] = Counter()
    seats = []
    for member in asked:
        sample = numbers[member.name]
        numbers[member.name] += 1
        own = middle if member.temperature is None else member.temperature
        heat = _as_temperature(own + jitter * (2 * _spread_point(sample + 1) - 1))
        sent = params_of(options, member, few_shot, heat)
        seats.append((_seat(member, sample, 1, times[member.name]), heat, sent))
    return FirstLayer(seats, {member.system: member for member in asked})


def _spread_point(number: int) -> float:
    """Return the numbers from 1 on as points between 0 and 1, the first few spread like all: 1/2, 1/4, 3/4, 1/8, …"""
    mirrored = f"{number:b}"[::-1]
    return int(mirrored, 2) / (1 << len(mirrored))


def _seats_of(options: PanelOptions, layer: int, *, short: bool = False) -> list[Seat]:
    """Return a seat for each time that a member is asked."""
    times = [(member, options.times_asked(member, short=short)) for member in options.members]
    return [_seat(member, sample, layer, count) for member, count in times for sample in range(count)]


def _seat(model: Model, sample: int, layer: int, times: int) -> Seat:
    """Return the seat of a member that is asked so many times."""
    label = f"{model.name}#{sample}" if sample or times > 1 else None
    return Seat(model, sample, layer, Slot(model.name, sample, layer, label))


def next_layer(record: Record) -> int:
    """Return the number of the layer that comes after the panel as it stands."""
    return 1 + max(response["layer"] for response in record["panel"])


def _spread_temperatures(seats: list[Seat], options: PanelOptions, few_shot: FewShot | None) -> list[float]:
    """Return each call's temperature: spread evenly over ±jitter, so that the drafts differ.

    A member with a temperature of its own keeps it; its further samples spread around it.
    """
    middle, jitter = _heat(options, few_shot)
    free = [i for i, seat in enumerate(seats) if seat.model.temperature is None]
    temperatures = dict(zip(free, _spread_evenly(middle, jitter, len(free)), strict=True))
    for model in {s.model.name: s.model for s in seats if s.model.temperature is not None}.values():
        own = [i for i, seat in enumerate(seats) if seat.model.name == model.name]
        temperatures.update(zip(own, _spread_evenly(model.temperature or 0.0, jitter, len(own)), strict=True))
    return [temperatures[i] for i in range(len(seats))]


def _heat(options: PanelOptions, few_shot: FewShot | None) -> tuple[float, float]:
    """Return the middle of the temperatures, and how far they reach to each side."""
    middle = few_shot.temperature if few_shot and few_shot.temperature is not None else options.temperature
    jitter = few_shot.jitter if few_shot and few_shot.jitter is not None else options.jitter
    return middle, jitter if options.diversity else 0.0


def _as_temperature(heat: float) -> float:
    return round(min(2.0, max(0.0, heat)), 4)


def _spread_evenly(middle: float, jitter: float, count: int) -> list[float]:
    if count < 2:
        return [round(middle, 4)] * count
    step = 2 * jitter / (count - 1)
    return [_as_temperature(middle - jitter + i * step) for i in range(count)]


def _is_short(record: Record, few_shot: FewShot | None) -> bool:
    """Return whether the worked turns fit this question: one short user turn that asks for no long answer."""
    if few_shot is None or len(record["messages"]) != 1:
        return False
    question = question_text(record)
    if len(question) > few_shot.max_chars or "\n" in question.strip():
        return False
    words = set(re.findall(r"[^\W\d_]+", question.lower()))
    return words.isdisjoint(few_shot.unless)
