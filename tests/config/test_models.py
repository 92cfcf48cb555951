"""Models and endpoints: how one is spelled, what the environment changes, and where a key may go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from recipes import KEYS, SECRET, build
from workdir import Run, Upstream

from fusiontools.config.models import (
    ENDPOINTS,
    Endpoint,
    Model,
    endpoint_from,
    environment_endpoints,
    merge_members,
    require_key,
)
from fusiontools.config.recipe import Recipe, parse_model
from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.errors import UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.http import HttpBackend

# How a model is spelled


def test_an_asterisk_counts_and_a_colon_does_not() -> None:
    recipe = Recipe("r")

    assert parse_model("a/b*3", recipe) == Model("a/b", "a/b", "openrouter", samples=3)
    assert parse_model("x/y:free", recipe) == Model("x/y:free", "x/y:free", "openrouter")
    assert parse_model("llama3:8b@ollama", recipe) == Model("llama3:8b", "llama3:8b", "ollama")
    assert parse_model("llama3:8b*2@ollama", recipe) == Model("llama3:8b", "llama3:8b", "ollama", samples=2)
    assert parse_model("llama3:8b@ollama*2", recipe) == Model("llama3:8b", "llama3:8b", "ollama", samples=2)


def test_an_at_sign_before_no_endpoint_belongs_to_the_name() -> None:
    assert parse_model("@cf/meta/llama", Recipe("r")).model == "@cf/meta/llama"
    assert parse_model("claude@20240229", Recipe("r")).model == "claude@20240229"


def test_a_word_after_an_at_sign_that_is_no_endpoint_is_a_typing_error() -> None:
    with pytest.raises(UsageError, match="no endpoint is called 'olama'; did you mean 'ollama'"):
        parse_model("llama3:8b@olama", Recipe("r"))


@pytest.mark.parametrize("text", ["", "  ", "@ollama", "*3", "a/b*0", "*3@ollama"])
def test_a_model_without_a_name_or_a_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"write MODEL, MODEL\*3 or MODEL@ENDPOINT"):
        parse_model(text, Recipe("r"))


@pytest.mark.parametrize("text", ["a/b", "a/b*3", "llama3:8b@ollama", "llama3:8b*2@ollama", "x/y:free"])
def test_a_recipe_spells_a_model_as_the_command_line_does(text: str) -> None:
    assert build(f"panel: ['{text}']").panel.members == (parse_model(text, Recipe("r")),)


def test_a_model_named_twice_is_asked_twice() -> None:
    models = tuple(parse_model(text, Recipe("r")) for text in ("a/b", "c/d", "a/b*2"))

    assert [(m.name, m.samples) for m in merge_members(models)] == [("a/b", 3), ("c/d", 1)]


# The environment


def keys_of(endpoints: Any) -> dict[str, str | None]:
    return {name: endpoint.key() for name, endpoint in endpoints.items()}


@pytest.fixture
def all_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Every key set, to its own name in lower case."""
    for name in KEYS:
        monkeypatch.setenv(name, name.lower())
    return monkeypatch


def test_without_an_address_the_general_key_stands_in_for_openrouters(all_keys: pytest.MonkeyPatch) -> None:
    keys = keys_of(environment_endpoints(ENDPOINTS))

    assert keys == {
        **dict.fromkeys(ENDPOINTS),
        "openrouter": "fusion_api_key",
        "openai": "openai_api_key",
        "anthropic": "anthropic_api_key",
        "gemini": "gemini_api_key",
    }


def test_each_endpoint_has_its_own_key(all_keys: pytest.MonkeyPatch) -> None:
    all_keys.delenv("FUSION_API_KEY")

    keys = keys_of(environment_endpoints(ENDPOINTS))

    assert (keys["openrouter"], keys["openai"]) == ("openrouter_api_key", "openai_api_key")


def test_an_address_takes_every_endpoint_but_the_embedded_engine_there(all_keys: pytest.MonkeyPatch) -> None:
    all_keys.setenv("FUSION_BASE_URL", "https://elsewhere.example/v1/")

    changed = environment_endpoints(ENDPOINTS)

    assert {e.base_url for e in changed.values() if not e.embedded} == {"https://elsewhere.example/v1"}
    assert {e.key() for e in changed.values() if not e.embedded} == {"fusion_api_key"}
    assert changed["local"].embedded


def test_a_password_in_the_address_is_refused_and_not_repeated(all_keys: pytest.MonkeyPatch) -> None:
    all_keys.setenv("FUSION_BASE_URL", f"https://me:{SECRET}@elsewhere.example/v1")

    with pytest.raises(UsageError) as refused:
        environment_endpoints(ENDPOINTS)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/v1",
        "https://openrouter.ai.elsewhere.example/api/v1",
        "https://openrouter.ai:8443/api/v1",
        "http://openrouter.ai/api/v1",
        "http://127.0.0.1:8000/v1",
    ],
)
def test_a_key_is_never_sent_where_it_was_not_made_for(all_keys: pytest.MonkeyPatch, url: str) -> None:
    all_keys.delenv("FUSION_API_KEY")
    all_keys.setenv("FUSION_BASE_URL", url)

    assert set(keys_of(environment_endpoints(ENDPOINTS)).values()) == {None}


@pytest.mark.parametrize(
    ("url", "key"),
    [("https://openrouter.ai/api/v1", "openrouter_api_key"), ("https://API.openai.com/v1", "openai_api_key")],
)
def test_an_address_that_has_a_key_of_its_own_gets_it(all_keys: pytest.MonkeyPatch, url: str, key: str) -> None:
    all_keys.delenv("FUSION_API_KEY")
    all_keys.setenv("FUSION_BASE_URL", url)

    assert environment_endpoints(ENDPOINTS)["openai"].key() == key


def test_a_recipe_that_moves_openrouter_does_not_get_its_stand_in_key(all_keys: pytest.MonkeyPatch) -> None:
    recipe = build("endpoints: {openrouter: {base_url: 'https://elsewhere.example/v1'}}")

    assert recipe.endpoints["openrouter"].key() is None


def test_an_empty_variable_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "")

    assert ENDPOINTS["openrouter"].key() is None
    with pytest.raises(UsageError, match="endpoint openrouter needs a key: export OPENROUTER_API_KEY="):
        require_key(ENDPOINTS["openrouter"])


@pytest.mark.parametrize("blank", ["\n", "\r\n", " "])
def test_white_space_around_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", f"{SECRET}{blank}")

    assert ENDPOINTS["openrouter"].key() == SECRET


@pytest.mark.parametrize("key", [f"{SECRET}\r{SECRET}", f"{SECRET}é", f"{SECRET}…"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", key)

    with pytest.raises(UsageError, match="OPENROUTER_API_KEY holds characters that no key has") as refused:
        require_key(ENDPOINTS["openrouter"])

    assert SECRET not in refused.value.message


def test_a_server_that_is_taken_elsewhere_is_free_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_BASE_URL", "https://openrouter.ai/api/v1")
    assert not environment_endpoints(ENDPOINTS)["ollama"].free

    monkeypatch.setenv("FUSION_BASE_URL", "http://127.0.0.1:11434/v1")
    assert environment_endpoints(ENDPOINTS)["ollama"].free
    assert not environment_endpoints(ENDPOINTS)["openrouter"].free


def test_the_embedded_engine_is_free_whatever_it_is_called() -> None:
    assert build("endpoints: {mine: {path: /models/qwen.gguf}}").endpoints["mine"].free


def test_other_weights_name_the_model_of_the_embedded_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_LOCAL_MODEL", "/models/Qwen3-4B.gguf")

    recipe = load_recipe("local")

    assert recipe.endpoints["local"].path == "/models/Qwen3-4B.gguf"
    assert [(m.name, m.model) for m in recipe.panel.members] == [("Qwen3-4B", "Qwen3-4B")]


def test_no_repr_holds_a_key(all_keys: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        all_keys.setenv(name, SECRET)
    recipe = load_recipe("budget")
    door = Client(recipe.endpoints)
    backend = HttpBackend(recipe.endpoints["openrouter"])

    shown = repr([recipe, door, recipe.endpoints, vars(backend), backend])

    assert recipe.endpoints["openrouter"].key() == SECRET
    assert SECRET not in shown


# A .env, through the real tool


def authorization(upstream: Upstream) -> set[str]:
    return {request["headers"]["authorization"] for request in upstream.requests()}


def test_a_dotenv_fills_in_what_the_environment_lacks(
    run: Run, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    del env["FUSION_API_KEY"]
    (tmp_path / ".env").write_text("FUSION_API_KEY=from-dotenv\nFUSION_BASE_URL=http://127.0.0.1:9/v1\n")

    result = run("fuse-panel -m fake/a", "Why?")

    assert result.status == 0
    assert authorization(upstream) == {"Bearer from-dotenv"}


def test_the_environment_wins_over_a_dotenv(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FUSION_API_KEY=from-dotenv\n")

    run("fuse-panel -m fake/a", "Why?")

    assert authorization(upstream) == {"Bearer test-key"}


# Endpoints of a recipe


def test_what_a_recipe_says_of_a_known_endpoint_changes_it() -> None:
    limited = endpoint_from("openrouter", {"rpm": 20})

    assert limited == replace(ENDPOINTS["openrouter"], rpm=20)
    assert endpoint_from("ollama", None) == ENDPOINTS["ollama"]
    assert endpoint_from("lmstudio", {"max_concurrency": 8}).one_model


def test_another_address_is_another_endpoint_and_gets_no_key() -> None:
    elsewhere = endpoint_from("openai", {"base_url": "https://elsewhere.example/v1"})

    assert (elsewhere.api_key_env, elsewhere.free) == (None, False)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"api": "command"}, "needs a `program`"),
        ({"api": "command", "program": "claude", "base_url": "http://there.example/v1"}, "`base_url` means nothing"),
        ({"command": ["cat"]}, "`command` is for a program"),
        ({"base_url": "http://there.example/v1", "env": ["HOME"]}, "`env` is for a program"),
    ],
)
def test_what_is_for_programs_goes_with_programs_only(said: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        endpoint_from("mine", said)


def test_a_server_that_stands_in_for_all_has_its_own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_BASE_URL", "http://127.0.0.1:9/v1")
    own = {"lab": Endpoint("lab", "https://lab.example/v1", rpm=5, trusted=True)}

    changed = environment_endpoints({**ENDPOINTS, **own})

    assert (changed["ollama"].one_model, changed["ollama"].max_concurrency) == (False, None)
    assert (changed["lab"].rpm, changed["lab"].trusted) == (5, False)


def test_no_server_stands_in_for_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_BASE_URL", "http://127.0.0.1:9/v1")
    program = Endpoint("plan", api="command", program="claude")

    assert environment_endpoints({"plan": program})["plan"] == program
    assert not program.embedded
