"""`fuse-cost`: what a run cost, and what one would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from fusiontools.cli.command import command
from fusiontools.config.options import Settings, option
from fusiontools.config.stage_table import InputOptions

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint
    from fusiontools.record.types import Call

_TOOL = "fuse-cost"
_FORESEEN = ("calls", "tokens in", "tokens out", "cost")
_MOST_TOKENS = 1_000_000
_TABLES = ("table", "text")
HELP = """\
\b
  fuse-cost < answers.jsonl
  fuse-cost --estimate -c frontier --lines < questions.txt

What a run cost, by stage, model, endpoint or record; or what one would cost.

Reads the ledger (`calls`) of records. Costs that nobody said are counted as unknown, never as 0; replayed calls cost
nothing and are shown with what they saved. An estimate needs no key and makes no call.
"""


class CostOptions(Settings):
    """What `fuse-cost` can be told."""

    by: str = option("stage,model", "--by", metavar="LIST", help="Group by any of stage, model, endpoint, record.")
    output: str = option(
        "table", "-o", "--output", choices=("table", "text", "json", "csv"), help="How to print it; text is a table."
    )
    tee: bool = option(False, "--tee", help="Pass the records on to stdout; the costs go to stderr.")
    estimate: bool = option(False, "--estimate", help="Read questions; say what the recipe would cost for them.")
    chain: str | None = option(
        None, "--chain", metavar="TEXT", help="The chain to estimate.  [default: the recipe's own]"
    )
    batch: bool = option(False, "--batch", help="Estimate the calls as batch jobs, at their price.")
    tokens: int = option(800, "--tokens", minimum=1, metavar="N", help="Length of an answer, for --estimate.")


@command(_TOOL, InputOptions, CostOptions, help=HELP)
def main(files: tuple[str, ...], config: str | None, cost: dict[str, Any], input: dict[str, Any]) -> None:  # noqa: A002
    import asyncio

    from fusiontools.cli.command import leave
    from fusiontools.errors import UsageError

    options, inputs = CostOptions(**cost), InputOptions(**input)
    if options.chain is not None and not options.estimate:
        raise UsageError("--chain goes with --estimate")
    if options.batch and not options.estimate:
        raise UsageError("--batch goes with --estimate")
    if options.tokens > _MOST_TOKENS:
        raise UsageError(f"--tokens {options.tokens}: no answer is longer than {_MOST_TOKENS:,} tokens")
    with asyncio.Runner() as runner:
        leave(runner.run(_run(files, config, options, inputs)))


async def _run(files: Sequence[str], config: str | None, options: CostOptions, inputs: InputOptions) -> int:
    import asyncio
    import os
    import signal

    from fusiontools.cli.command import complain, leave
    from fusiontools.cli.io import Flood, Input, note_list, write_or_leave
    from fusiontools.cli.setup import read_chain
    from fusiontools.config.recipe_yaml import load_recipe
    from fusiontools.config.stage_table import StreamOptions
    from fusiontools.errors import EXIT_INTERRUPTED, EXIT_NOTHING_USABLE, EXIT_OK, EXIT_SOME_FAILED, InputError
    from fusiontools.record import jsonl
    from fusiontools.runs.costs import Costs, estimate_calls

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, leave, EXIT_INTERRUPTED)
    costs, least, at_once = Costs(_parse_groups(options.by)), Costs([]), Costs([])
    recipe = load_recipe(config) if options.estimate else None
    chain = read_chain(options.chain, recipe) if recipe else None
    form = "text" if inputs.text else "lines" if inputs.lines else "auto" if options.estimate else "jsonl"
    if not files and os.isatty(0):
        complain(_TOOL, "reads records on stdin; press Ctrl-D to end (--help explains)")
    bad, singly, flood = 0, 0, Flood(_TOOL)
    async for batch in Input(files, form, int(StreamOptions().max_line_mib * 2**20)).batches():
        for line in batch:
            try:
                if line.problem:
                    raise InputError(line.problem)
                record = jsonl.from_text(line.data) if line.as_text else jsonl.parse(line.data)
                if line.as_text and not line.number and not inputs.text:
                    note_list(_TOOL, line)
            except InputError as error:
                flood.say(line.place, error.message)
                bad += 1
                continue
            if recipe is not None and chain is not None:
                cheapest = await estimate_calls(recipe, chain, record, options.tokens, agreed=True)
                dearest = await estimate_calls(recipe, chain, record, options.tokens)
                if options.batch:
                    at_once.add({**record, "calls": dearest})
                    singly += sum(not _goes_by_job(call, recipe.endpoints) for call in dearest)
                    cheapest, dearest = (_as_jobs(calls, recipe.endpoints) for calls in (cheapest, dearest))
                least.add({**record, "calls": cheapest})
                record = {**record, "calls": dearest}
            costs.add(record)
            if options.tee:
                write_or_leave(_TOOL, line.data.rstrip(b"\r\n") + b"\n")
    flood.sum_up()
    if costs.records == 0:
        complain(_TOOL, "nothing came in: no records")
        return EXIT_NOTHING_USABLE
    cases = {"least": least} if options.estimate else {}
    cases |= {"at_once": at_once} if options.batch else {}
    text = format_costs(costs, options.output, cases, foreseen=options.estimate)
    write_or_leave(_TOOL, text.encode(), 2 if options.tee else 1)
    if options.output in _TABLES:
        for saving in _describe_savings(costs):
            complain(_TOOL, saving)
        if options.estimate and least.total.calls < costs.total.calls:
            complain(_TOOL, _describe_least(costs, least))
        if options.batch:
            complain(_TOOL, _describe_at_once(at_once, singly))
    if costs.total.unknown and options.output in _TABLES:
        complain(_TOOL, _describe_unknown(costs.total.unknown))
    return EXIT_SOME_FAILED if bad else EXIT_OK


def _parse_groups(by: str) -> list[str]:
    from fusiontools.errors import UsageError, nearest
    from fusiontools.runs.costs import GROUPS

    groups = [group.strip() for group in by.split(",") if group.strip()]
    for group in groups:
        if group not in GROUPS:
            raise UsageError(f"--by {group!r}: no such group{nearest(group, list(GROUPS))}")
    return groups


def format_costs(costs: Any, form: str, cases: Mapping[str, Any] | None = None, *, foreseen: bool) -> str:
    """Return the costs as they are printed.

    Args:
        foreseen: whether the table leaves out what only calls that were made have.
        cases: of an estimate, what else it may come to; JSON shows it.
    """
    rows = sorted(costs.rows.items(), key=lambda row: (-row[1].known_usd, row[0]))
    if form == "json":
        from fusiontools.record import jsonl

        data = {
            "records": costs.records,
            "solo": costs.solo,
            "spared": {"calls": costs.spared, "saved_usd": _spared_usd(costs)},
            "total": _sums_of(costs.total),
            **{name: _sums_of(case.total) for name, case in (cases or {}).items()},
            "rows": [{**dict(zip(costs.by, key, strict=True)), **_sums_of(row)} for key, row in rows],
        }
        return jsonl.dumps(data).decode() + "\n"
    if form == "csv":
        import csv
        import io

        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*costs.by, *_sums_of(costs.total)])
        writer.writerows([*key, *_sums_of(row).values()] for key, row in rows)
        return out.getvalue()
    return _table(costs, rows, foreseen)


def _sums_of(row: Any) -> dict[str, Any]:
    """Return a row's sums; what was paid, or saved, is null where nobody knows it of any call."""
    return {
        "calls": row.calls,
        "failed": row.failed,
        "replayed": row.replayed,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cost_usd": None if row.nothing_known else round(row.known_usd, 8),
        "unknown": row.unknown,
        "saved_usd": None if row.replayed and row.saved_unknown == row.replayed else round(row.saved_usd, 8),
        "latency_s": round(row.time_s, 4),
    }


def _table(costs: Any, rows: list[Any], foreseen: bool) -> str:
    from fusiontools.cli.table import table_text

    columns = ["calls", "failed", "replayed", "tokens in", "tokens out", "cost", "saved", "time"]
    shown = [columns.index(name) for name in (_FORESEEN if foreseen else columns)]

    def cells(row: Any) -> list[str]:
        every = _cells_of(row)
        return [every[i] for i in shown]

    texts = len(costs.by)
    lines = [[*key, *cells(row)] for key, row in rows] if texts else []
    total = ["total", *[""] * (texts - 1)] if texts else []
    head = [*costs.by, *(columns[i] for i in shown)]
    return table_text(head, [*lines, [*total, *cells(costs.total)]], left=range(texts))


def _cells_of(row: Any) -> list[str]:
    known = ("≥ " if row.unknown else "") + f"${row.known_usd:.4f}"
    cost = "unknown" if row.nothing_known else known
    saved = "-"
    if row.replayed:
        known_saved = ("≥ " if row.saved_unknown else "") + f"${row.saved_usd:.4f}"
        saved = "unknown" if row.saved_unknown == row.replayed else known_saved
    numbers = (row.calls, row.failed, row.replayed, row.prompt_tokens, row.completion_tokens)
    return [*(f"{n:,}" for n in numbers), cost, saved, f"{row.time_s:.1f} s"]


def _describe_savings(costs: Any) -> list[str]:
    """Return what scouts and routers have saved, in words."""
    said = []
    if costs.spared:
        usd = _spared_usd(costs)
        worth = "at prices nobody knows" if usd is None else f"worth {'≥ ' if costs.spared_unknown else ''}${usd:.4f}"
        said.append(
            f"{costs.spared} call{'s' if costs.spared > 1 else ''} spared, {worth}: enough of the others agreed"
        )
    if costs.solo:
        said.append(f"{costs.solo} of {costs.records} records answered by one model alone")
    return said


def _describe_least(costs: Any, least: Any) -> str:
    """Return in words why an estimate is a bound, and how far below it a run may stay."""
    tools = ", and each to use all of its runs of tools (max_tool_calls)" if costs.tool_runs else ""
    usd = "" if least.total.unknown else f", ${least.total.known_usd:.4f}"
    return f"this is the most: responses are taken to differ{tools}; the least is {least.total.calls:,} calls{usd}"


def _describe_at_once(at_once: Any, singly: int) -> str:
    """Return in words what an estimate of batch jobs compares with."""
    usd = "of unknown cost" if at_once.total.nothing_known else f"${at_once.total.known_usd:.4f}"
    rest = ""
    if singly:
        go, its = ("calls go", "their") if singly > 1 else ("call goes", "its")
        rest = f"; {singly:,} {go} to endpoints without batch jobs, at {its} full price"
    return f"an estimate by what providers say a job costs; made at once, the same calls are {usd}{rest}"


def _goes_by_job(call: Call, endpoints: Mapping[str, Endpoint]) -> bool:
    endpoint = endpoints.get(call["endpoint"] or "")
    return endpoint is not None and (endpoint.free or endpoint.batch_terms is not None)


def _as_jobs(calls: Sequence[Call], endpoints: Mapping[str, Endpoint]) -> list[Call]:
    """Return calls at what they cost in batch jobs, where they can go so."""
    from fusiontools.llm.batches.batch_money import in_a_job

    priced = []
    for call in calls:
        endpoint = endpoints.get(call["endpoint"] or "")
        if endpoint is not None and endpoint.batch_terms is not None:
            usd, source = in_a_job(call["cost_usd"], call["cost_source"], endpoint.batch_terms)
            call = cast("Call", {**call, "cost_usd": usd, "cost_source": source})
        priced.append(call)
    return priced


def _spared_usd(costs: Any) -> float | None:
    return None if costs.spared and costs.spared == costs.spared_unknown else round(costs.spared_usd, 8)


def _describe_unknown(count: int) -> str:
    from fusiontools.errors import install_line
    from fusiontools.llm.prices import price_list_available

    hint = "" if price_list_available() else f"; for list prices: {install_line('prices')}; or"
    calls = f"{count} call{'s' if count > 1 else ''}"
    return f"the cost of {calls} is unknown{hint or ';'} give `price_usd_per_mtok` in the recipe"
