"""Chains: one text that the shell, recipes and Python spell alike, and one record whichever of them runs it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace
from samples import judged, lines, question, without_calls
from scripted import HANG, Scripted, model, open_door, said
from workdir import Run, Upstream

import fusiontools
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import load_recipe, recipe_names
from fusiontools.config.stage_table import JudgeOptions, PanelOptions, SynthOptions, VoteOptions
from fusiontools.errors import UsageError
from fusiontools.record.types import Record
from fusiontools.runs.chain import Chain
from fusiontools.stages.runtime import Runtime

ASKED: Record = {"id": "q1", "messages": [{"role": "user", "content": "Why is that so?"}]}
RECIPE = Recipe(
    "mine",
    stages={
        "panel": PanelOptions(members=(model("a"), model("b"))),
        "judge": JudgeOptions((model("j"),)),
        "synth": SynthOptions((model("s"),)),
    },
    endpoint="there",
    endpoints=open_door(Scripted()).endpoints,
)


def run_chain(text: str, backend: Scripted, record: Record | None = None, heard: list[str] | None = None) -> Record:
    async def work() -> Record:
        door = open_door(backend)
        try:
            on_delta = heard.append if heard is not None else None
            return await Chain.parse(text).bind(RECIPE)(record or ASKED, Runtime(door, on_delta))
        finally:
            await door.aclose()

    return asyncio.run(work())


# --- Running ---


def test_options_that_contradict_each_other_are_refused_with_the_steps_column() -> None:
    with pytest.raises(UsageError, match=r"^column 9: panel: --debate contradicts --sequential$"):
        Chain.parse("panel | panel --debate --sequential").bind(RECIPE)
    with pytest.raises(UsageError, match=r"^column 9: pick: --pairwise contradicts --consistent$"):
        Chain.parse("panel | pick --pairwise --consistent").bind(RECIPE)


def test_each_step_reads_what_the_one_before_it_wrote() -> None:
    backend = Scripted(a="One.", b="Two.", s="Both.")

    record = run_chain("panel | panel --revise | judge --method lexical | synth", backend)

    assert backend.asked == ["a", "b", "a", "b", "s"]
    assert record["answer"]["content"] == "Both."
    assert [len(layer) for layer in record["layers"]] == [2]
    assert {response["layer"] for response in record["panel"]} == {2}


def test_typed_members_of_the_first_step_sit_on_the_later_layers_too() -> None:
    backend = Scripted()

    run_chain("panel -m x@there -m y@there | panel --revise", backend)

    assert sorted(backend.asked) == ["x", "x", "y", "y"]


def test_the_text_is_heard_from_the_step_that_has_the_last_word() -> None:
    backend = Scripted(a="One long enough to be kept.", b="Two long enough to be kept.", s=["Draft.", "Final."])
    heard: list[str] = []

    record = run_chain("panel | synth | synth --refine", backend, heard=heard)

    assert "".join(heard) == record["answer"]["content"] == "Final."


@pytest.mark.parametrize(
    ("chain", "weighing", "is_asked"),
    [
        ("panel | vote", "given", False),
        ("panel --logprobs | vote", "given", True),
        ("panel | vote --weights logprob", "given", True),
        ("panel | vote --drop-lowest 0.4", "given", True),
        ("panel | panel --revise | vote --drop-lowest 0.4", "given", True),
        ("panel | vote", "logprob", True),
        ("panel", "logprob", True),
    ],
)
def test_a_panel_asks_how_likely_tokens_are_where_it_is_told_or_a_vote_of_its_chain_or_recipe_counts_by_it(
    chain: str, weighing: str, is_asked: bool
) -> None:
    backend = Scripted()
    recipe = replace(RECIPE, stages={"panel": RECIPE.panel, "vote": VoteOptions(weighing=weighing)})

    asyncio.run(Chain.parse(chain).bind(recipe)(ASKED, Runtime(open_door(backend))))

    assert {request.logprobs for request in backend.requests} == {is_asked}


def test_one_deadline_holds_for_the_whole_chain() -> None:
    async def work() -> Record:
        backend = Scripted(a="One.", b="Two.", j=HANG())
        door = open_door(backend, limits={"deadline_s": 0.2})
        return await Chain.parse("panel | judge | synth").bind(RECIPE)(ASKED, Runtime(door))

    record = asyncio.run(work())

    assert [note["code"] for note in record["degraded"]] == ["judge_failed", "synth_failed"]
    assert record["answer"]["by"] == "panel"


def test_python_runs_a_chain_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, upstream: Upstream) -> None:
    monkeypatch.setenv("FUSION_BASE_URL", upstream.url)
    monkeypatch.setenv("FUSION_API_KEY", "k")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    record = asyncio.run(fusiontools.fuse("Why?", "budget", "panel -m fake/a+text=42 -m fake/b+text=42 | vote"))

    assert record["answer"]["vote"]["votes"] == 2


def test_a_recipe_says_its_chain(run: Run, tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text("chain: panel | vote\npanel: [fake/a+text=7, fake/b+text=7]\n")

    result = run(["fuse-ask", "-c", "mine.yaml", "Seven?"])

    assert (result.status, result.text) == (0, "7\n")


def test_a_chain_that_cannot_be_read_is_the_recipes_fault(run: Run, tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text("chain: panel | sinth\npanel: [fake/a]\n")

    result = run(["fuse-ask", "-c", "mine.yaml", "Seven?"])

    assert result.status == 2
    assert "mine.yaml: $.chain: column 9: no stage is called 'sinth'; did you mean 'synth'?" in result.err


# --- The same record, in one process and in a pipeline ---


def pipeline(chain: str, recipe: str) -> str:
    """Return a chain as a person types it in the shell: the recipe goes to the tools up to the panel."""
    steps = [step.strip() for step in chain.split("|")]
    made = next(i for i, step in enumerate(steps) if step.split()[0] == "panel")
    return " | ".join(f"fuse-{step}" + (f" -c {recipe}" if i <= made else "") for i, step in enumerate(steps))


QUESTION = "Compare CRDTs and operational transformation for a shared editor: which one, and what are the trade-offs?"


#: These have every stage but the vote between them.
QUICK = {"cascade", "debate", "pick"}
slow = pytest.mark.slow


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=slow) for name in recipe_names()])
def test_one_process_and_a_pipeline_give_the_same_record(name: str, run: Run, env: dict[str, str]) -> None:
    asked = "What is the capital of France?" if name == "local" else QUESTION

    alone = run(["fuse-ask", "-c", name, "--json", asked])
    # Later tools go by the record, but for tools of models: no record turns one on.
    held = {"FUSION_CONFIG": name} if load_recipe(name).judge.tools else {}
    piped = run(pipeline(load_recipe(name).chain, name), asked, env={**env, **held})

    assert (alone.status, piped.status) == (0, 0), alone.err + piped.err
    assert without_calls(alone.out) == without_calls(piped.out)
    assert "answer" in alone.records[0]


@pytest.mark.parametrize(
    "chain",
    [
        "panel -m fake/a -m fake/b | panel --revise | panel --debate | judge -m fake/judge | synth -m fake/s --refine",
        pytest.param("panel -m fake/a*5 --temperature 1 | panel --sequential --window 3 | synth -m fake/s", marks=slow),
        pytest.param(
            "route --method never --fast fake/a --balanced fake/a --strong fake/a | panel -m fake/b | judge | synth",
            marks=slow,
        ),
        "panel -m fake/a+text=4 -m fake/b+text=4 -m fake/c+text=5 --scout 2 | judge -m fake/judge | synth -m fake/s",
        "panel -m fake/a+text=4 -m fake/b+status=500 -m fake/c+text=5 --retries 0 | vote",
        pytest.param("panel -m fake/a -m fake/b | judge -m fake/judge -m fake/judge2+judge --swap | pick", marks=slow),
    ],
)
def test_any_chain_gives_the_same_record_in_one_process(chain: str, run: Run, tmp_path: Any) -> None:
    chain, limits = chain.replace(" --retries 0", ""), ["--retries", "0"]
    (tmp_path / "base.yaml").write_text("panel: [fake/x]\njudge: fake/judge\nsynth: fake/s\n")
    shell = pipeline(chain, "base.yaml")

    alone = run(["fuse-ask", "-c", "base.yaml", "--chain", chain, *limits, "--json", QUESTION])
    piped = run(shell.replace("fuse-panel -m", "fuse-panel --retries 0 -m"), QUESTION)

    assert (alone.status, piped.status) == (0, 0), alone.err + piped.err
    assert without_calls(alone.out) == without_calls(piped.out)


def test_a_recipes_own_template_holds_for_the_whole_chain(run: Run, upstream: Upstream, tmp_path: Any) -> None:
    (tmp_path / "mine.md").write_text("# judge system\n\nJudge as I say.\n")
    (tmp_path / "mine.yaml").write_text(
        "panel: [fake/a, fake/b]\njudge: {model: fake/judge, template: ./mine.md}\nsynth: fake/s\n"
    )

    asked = run(["fuse-ask", "-c", "mine.yaml", "--json", "Why?"])
    voted = run("fuse-panel -c mine.yaml | fuse-vote", "Why?")
    picked = run("fuse-panel -c mine.yaml | fuse-pick", "Why?")

    assert (asked.status, voted.status, picked.status) == (0, 0, 0), asked.err + voted.err + picked.err
    assert upstream.bodies("fake/judge")[0]["messages"][0]["content"] == "Judge as I say."


def test_a_model_typed_later_is_asked_where_the_recipe_is_at_home(run: Run, tmp_path: Any, upstream: Upstream) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"endpoint: mine\nendpoints: {{mine: {{base_url: '{upstream.url}'}}}}\npanel: [fake/a, fake/b]\n"
    )

    alone = run(["fuse-ask", "-c", "mine.yaml", "--json", "--chain", "panel | synth -m fake/t", "Why?"])
    piped = run("fuse-panel -c mine.yaml | fuse-synth -m fake/t", "Why?")

    assert without_calls(alone.out) == without_calls(piped.out)
    assert [call["endpoint"] for call in piped.records[0]["calls"]] == ["mine"] * 3


def test_a_saved_panel_enters_a_chain_half_way() -> None:
    backend = Scripted(j=json.dumps({"consensus": ["x"], "ranking": ["A", "B"]}), s=said("Written."))
    saved = json.loads(lines([judged("q")]).splitlines()[0])

    record = run_chain("synth", backend, saved)

    assert record["answer"]["content"] == "Written."


def test_a_question_without_a_panel_in_the_chain_is_refused(run: Run) -> None:
    result = run(["fuse-ask", "--chain", "judge | synth", "Why?"])

    assert (result.status, result.out) == (2, b"")
    assert "--chain: a question needs a `panel` that answers it" in result.err


def test_a_layer_for_a_record_without_a_panel_is_that_records_fault(run: Run) -> None:
    result = run("fuse-panel --revise -m fake/a", lines([question("q1")]))

    assert result.status == 3
    assert "no `panel` in this record; fuse-panel makes it" in result.err


# From Python


@pytest.fixture
def _asked_here(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    for name in ("FUSION_BASE_URL", "FUSION_API_KEY", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, env[name])


@pytest.mark.usefixtures("_asked_here")
@pytest.mark.parametrize(
    "asked",
    [
        "Why?",
        [{"role": "user", "content": "Why?"}],
        {"messages": [{"role": "user", "content": "Why?"}]},
        {"prompt": "Why?"},
    ],
    ids=["text", "messages", "request", "prompt"],
)
def test_a_question_may_have_any_form_that_the_shell_takes(asked: Any) -> None:
    record = fusiontools.fuse_sync(asked, "budget", chain="panel -m fake/a+text=So | pick")

    assert record["messages"] == [{"role": "user", "content": "Why?"}]
    assert record["answer"]["content"] == "So"


@pytest.mark.usefixtures("_asked_here")
def test_the_synchronous_door_opens_also_where_a_loop_runs() -> None:
    async def notebook() -> Record:
        return fusiontools.fuse_sync("Why?", "budget", chain="panel -m fake/a+text=So | pick")

    assert asyncio.run(notebook())["answer"]["content"] == "So"


@pytest.mark.usefixtures("_asked_here")
@pytest.mark.parametrize(
    "asked",
    ["", " \n", [], {"messages": []}, {}, 3, None, b"Why?", [{"role": "user"}], {"messages": "Why?"}, [object()]],
)
def test_what_is_no_question_is_refused_before_anything_is_asked(asked: Any, upstream: Upstream) -> None:
    with pytest.raises(fusiontools.InputError):
        fusiontools.fuse_sync(asked, "budget", chain="panel -m fake/a | pick")

    assert upstream.stats()["requests"] == 0


def test_a_model_typed_for_a_stage_that_the_chain_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--judge 'x': the chain 'panel \| vote' has no `judge`"):
        Chain.parse("panel | vote").with_models("judge", "x")
