"""What an operator wrote for nobody else: prompts, `extra`, commands and paths stay out of what clients are shown."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from serving import Server
from workdir import Serve

from fusiontools.config.click_options import kinds_of
from fusiontools.config.models import Model
from fusiontools.config.recipe import PRIVATE_OF_MODEL
from fusiontools.config.stage_table import STAGES
from fusiontools.server.scrubbing import scrub

RECIPE = """
chain: route --method command --command ./private-router.sh | panel --system private-typed | judge | synth
models:
  a: {{model: fake/a, system: private-model-prompt, extra: {{tag: private-extra}}}}
panel: {{members: [a, fake/b], system: private-panel-prompt, extra: {{top_k: 3, tag: private-tag}}}}
judge: {{model: fake/judge, template: {folder}/private-template.md}}
synth: {{model: fake/synth, extra: {{tag: private-synth}}}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "private-template.md").write_text("# judge system\nprivate-judge-prompt\n")
    return RECIPE.format(folder=tmp_path)


def shown(server: Server) -> list[str]:
    """Return everything that clients are shown of a recipe."""
    whole = {"fusion": {"include": ["panel", "analysis", "record"]}}
    replies = [
        server.get("/recipes"),
        server.get("/recipes/recipe"),
        server.post("/fuse", {"prompt": "Why?"}),
        server.post("/fuse", {"prompt": "Why?", "model": "a"}),
        server.chat(**whole),
        server.post("/v1/responses", {"model": "a", "input": "Why?", **whole}),
        server.post("/v1/estimate", {"model": "fusion", "messages": [{"role": "user", "content": "Why?"}]}),
    ]
    assert [reply.status_code for reply in replies] == [200] * len(replies), [reply.text for reply in replies]
    return [reply.text for reply in replies]


def test_clients_are_shown_no_prompt_no_extra_no_command_and_no_path(serve: Serve, recipe: str) -> None:
    texts = shown(serve(recipe=recipe))

    assert [text for text in texts if "private" in text] == []
    assert '"members":[{"name":"a","model":"fake/a"' in texts[1]


def test_an_operator_may_show_recipes_whole(serve: Serve, recipe: str) -> None:
    listed, described, fused, *_ = shown(serve("--show-recipes", recipe=recipe))

    assert "private-typed" in listed
    assert all(word in described for word in ("private-panel-prompt", "private-model-prompt", "private-template.md"))
    assert "private-typed" in fused


#: Options that hold free text, and nothing that anybody keeps to themselves.
PUBLIC = {"weights", "learned", "key", "agree", "tools"}


def test_every_option_that_holds_free_text_is_private_or_known_to_be_harmless() -> None:
    undecided = [
        f"{name}.{field.name}"
        for name, spec in STAGES.items()
        for field in fields(spec.options)
        if not (flag := field.metadata["flag"]).private
        and not flag.choices
        and not flag.model
        and kinds_of(spec.options)[field.name] not in (int, float, bool)
        and field.name not in PUBLIC
    ]

    assert undecided == []
    named = {"name", "model", "endpoint", "fallbacks", "reasoning_effort", "price_usd_per_mtok", "tools"}
    numbers = {"samples", "temperature", "top_p", "max_tokens"}
    assert set(Model.__struct_fields__) == named | numbers | set(PRIVATE_OF_MODEL)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("cannot reach http://127.0.0.1:9/v1: Connection refused", "cannot reach the endpoint: Connection refused"),
        ("cannot reach http://[::1]:9: Connection refused", "cannot reach the endpoint: Connection refused"),
        (
            "HTTP 404: no (POST http://h:80/v1/chat; most end with /v1)",
            "HTTP 404: no (POST the endpoint; most end with /v1)",
        ),
        ("moved to https://other.example/a?b=c: see 'http://h/x'.", "moved to the endpoint: see 'the endpoint'."),
    ],
)
def test_an_address_goes_and_the_mark_behind_it_stays(said: str, shown: str) -> None:
    assert scrub(said) == shown
