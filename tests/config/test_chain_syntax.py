"""Chain texts: how steps are read, and what is said of those that cannot be."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.config.chain_syntax import Step, parse, spell
from fusiontools.config.click_options import kinds_of
from fusiontools.config.options import Flag, flags_of
from fusiontools.config.recipe_yaml import load_recipe, recipe_names
from fusiontools.config.stage_table import STAGES
from fusiontools.errors import UsageError


def test_a_chain_is_its_tools_without_their_prefix() -> None:
    steps = parse("route | panel -m a*3 --no-diversity | judge | synth --refine")

    assert [(step.name, step.given) for step in steps] == [
        ("route", {}),
        ("panel", {"members": ("a*3",), "diversity": False}),
        ("judge", {}),
        ("synth", {"refine": True}),
    ]
    assert [step.column for step in steps] == [1, 9, 39, 47]


def test_the_prefix_may_stay_and_blanks_do_not_matter() -> None:
    assert [s.name for s in parse("fuse-panel|fuse-judge  |\n\tsynth")] == ["panel", "judge", "synth"]


def test_quotes_hold_blanks_and_separators_together() -> None:
    [_, vote] = parse(r"""panel --system 'Be "brief" | now' | vote --key "regex:(\d+) \"x\"|y" """)
    [panel, _] = parse(r"""panel --system it\'s\ so | vote""")

    assert vote.given == {"key": 'regex:(\\d+) "x"|y'}
    assert panel.given == {"system": "it's so"}


def test_every_flag_of_every_stage_is_read_as_the_shell_reads_it() -> None:
    for name, spec in STAGES.items():
        for field, flag in flags_of(spec.options).items():
            value = flag.choices[0] if flag.choices else "3" if flag.maximum is None or flag.maximum > 3 else "0.5"
            words = [flag.names[-1].partition("/")[0], *([] if kinds_of(spec.options)[field] is bool else [value])]
            [*_, step] = parse(("panel | " if spec.needs else "") + f"{name} {shlex.join(words)}")

            assert field in step.given, (name, field)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", f"column 1: the chain is empty; stages: {', '.join(STAGES)}"),
        ("panel | ", "column 7: a stage is missing here"),
        ("| panel", "column 1: a stage is missing here"),
        ("panel || synth", "column 8: a stage is missing here"),
        ("panel 'oops", "column 7: ' has no other half"),
        ("panel \\", "column 7: \\ ends the text"),
        ("panel | sinth", "column 9: no stage is called 'sinth'; did you mean 'synth'?"),
        ("panel extra | vote", "column 7: panel: got unexpected extra argument (extra)"),
        ("panel -m", "column 7: panel: option '-m' requires an argument"),
        ("panel -m a -j 3", "column 12: panel: -j belongs to the run, not to a step: give it to the tool that runs the chain"),  # noqa: E501
        ("panel -m a --samples=0", "column 12: panel: invalid value for '--samples': 0 is not in the range 1<=x<=10000"),  # noqa: E501
        ("panel | judge | synth --top x", "column 23: synth: invalid value for '--top': 'x' is not a valid whole number"),  # noqa: E501
        ("panel | judge --method x", "column 15: judge: invalid value for '--method': 'x' is not one of 'model', 'lexical'"),  # noqa: E501
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_pointed_at(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)

    assert refused.value.message.rstrip(".") == said


def test_a_misspelled_option_is_pointed_at_and_named() -> None:
    with pytest.raises(UsageError, match=r"^column 15: judge: no such option '--swop'.*--swap"):
        parse("panel | judge --swop")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("synth | panel", "column 1: `synth` reads a panel, and `panel` comes only after it"),
        ("judge | panel | synth", "column 1: `judge` reads a panel, and `panel` comes only after it"),
        ("panel --revise | panel", "column 1: `panel` reads a panel, and `panel` comes only after it"),
        ("panel | panel", "column 9: a second `panel` throws the first away; `panel --revise` adds a layer to it"),
        ("panel | route", "column 9: `route` decides what is asked: it comes first"),
        ("panel | vote | synth", "column 16: `synth` throws away the answer of `vote`"),
        ("panel | synth | judge", "column 17: `judge` throws away the answer of `synth`"),
        ("panel | judge | panel --debate", "column 17: a new layer throws away the analysis; judge after the last layer"),  # noqa: E501
        ("panel | judge | judge", "column 17: a second `judge` throws the first away; `judge -m a -m b` asks several"),
    ],
)  # fmt: skip
def test_steps_that_cannot_work_together_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)

    assert refused.value.message == said


@pytest.mark.parametrize(
    "text",
    [
        "panel",
        "judge | synth",
        "panel --revise | synth",
        "route | panel | panel --revise | panel --debate | judge | synth | synth --refine",
        "panel | pick",
        "panel | vote | synth --refine",
        "panel --sequential | pick",
    ],
)
def test_what_can_work_is_accepted(text: str) -> None:
    assert len(parse(text)) == text.count("|") + 1


@given(st.text(alphabet="panel judgesynthrou|'\"\\-*3=", max_size=40))
def test_any_text_is_a_chain_or_a_usage_error_with_a_column(text: str) -> None:
    refused = None
    try:
        assert parse(text)
    except UsageError as error:
        refused = error.message

    if refused is not None:
        place, column, *_ = refused.split()
        assert place == "column"
        assert 1 <= int(column.rstrip(":")) <= max(1, len(text))


# --- Spelled again ---


def _values(kind: object, flag: Flag) -> st.SearchStrategy[object]:
    """Return what the option may be given in a chain text."""
    if flag.choices:
        one: st.SearchStrategy[object] = st.sampled_from(flag.choices)
    elif kind is bool:
        return st.booleans() if "/" in flag.names[-1] else st.just(True)
    elif kind is int:
        one = st.integers(int(flag.minimum or 0), int(flag.maximum or 10**6))
    elif kind is float:
        one = st.floats(flag.minimum or 0, flag.maximum or 1e9)
    else:
        one = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    return st.lists(one, min_size=1, max_size=3).map(tuple) if flag.multiple else one


@st.composite
def _step(draw: st.DrawFn) -> Step:
    name = draw(st.sampled_from(list(STAGES)))
    kinds, flags = kinds_of(STAGES[name].options), flags_of(STAGES[name].options)
    said = draw(st.lists(st.sampled_from(list(flags)), unique=True, max_size=4))
    return Step(name, {key: draw(_values(kinds[key], flags[key])) for key in said}, 1)


@given(_step())
def test_a_step_that_is_spelled_is_read_as_the_same_step(step: Step) -> None:
    assert parse(spell([step])) == (step,)


@pytest.mark.parametrize("name", recipe_names())
def test_the_chain_of_every_shipped_recipe_is_spelled_as_it_is_read(name: str) -> None:
    steps = parse(load_recipe(name).chain)

    assert [(s.name, s.given) for s in parse(spell(steps))] == [(s.name, s.given) for s in steps]


def test_what_an_operator_wrote_for_nobody_else_may_be_left_out() -> None:
    steps = parse("route --command ./secret.sh | panel --system 'Be brief' -m a | judge --template creative | "
                  "synth --template /srv/prompts/own.md --refine")  # fmt: skip

    assert spell(steps, private=False) == "route | panel -m a | judge --template creative | synth --refine"
