"""The parts of the documents that repeat code: each function returns the Markdown of one block.

`make docs` writes them into the pages (cog), `make check` fails where a page differs from what they return.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.config import recipe_yaml
from fusiontools.config.chain_syntax import parse
from fusiontools.config.models import ENDPOINTS, BatchTerms, CommandOutput, Endpoint, Model
from fusiontools.config.options import Flag
from fusiontools.config.recipe import Recipe
from fusiontools.config.stage_table import STAGES, FewShot, LimitOptions
from fusiontools.config.templates import template_names
from fusiontools.config.tool_options import McpServer
from fusiontools.errors import EXITS, FAILURE_CODES
from fusiontools.record import params, schemas
from fusiontools.server.protocols.exchange import API_CODES

ROOT = Path(__file__).parents[1]
#: What recipe keys without an option of the command line mean; a key that is missing here stops `make docs`.
MEANINGS = {
    "name": "What records call the recipe.",
    "description": "For people.",
    "chain": "What `fuse-ask` and `fuse-serve` do with a question; see [chains](CHAINS).",
    "tool_fusion": "What `fuse-serve` does with a question that has tools: `fuse`, `first`, `pick` or `pass`.",
    "endpoint": "Where models without an endpoint of their own are asked.",
    "endpoints": "Endpoints by name, besides the [known ones](ENDPOINTS).",
    "endpoints.*.base_url": "The URL up to and including the version.",
    "endpoints.*.api_key_env": "The environment variable that holds the key. A key in a recipe is refused.",
    "endpoints.*.api_key_command": "A command that prints the key, where the environment has none: a list, or words.",
    "endpoints.*.free": "Calls cost nothing.",
    "endpoints.*.headers": "Extra HTTP headers; never credentials.",
    "endpoints.*.api": "`openai` (chat completions), `anthropic` (the Messages API) or `command` (a program is run).",
    "endpoints.*.path": "Embedded engine only (no `base_url`): a GGUF file.",
    "endpoints.*.context_tokens": "Embedded engine only: room for prompt and answer together.",
    "endpoints.*.max_concurrency": "Calls in flight at once; see [limits](ENDPOINTS#limits-of-an-endpoint).",
    "endpoints.*.rpm": "Requests that begin within any minute.",
    "endpoints.*.tpm": "Tokens within any minute: estimated before a call, counted after it.",
    "endpoints.*.one_model": "Calls for one model at a time, for a server that loads each model that it is asked for.",
    "endpoints.*.trusted": "What `redact` hides from the others is sent here as it is.",
    "endpoints.*.batch": "How calls go there as [batch jobs](BATCHES), where that is not known by the host.",
    "endpoints.*.batch.api": "`openai`, `anthropic`, `openrouter`, `mistral`, `gemini`, or `none`.",
    "endpoints.*.batch.url": "Where that API is, where it is not at `base_url`.",
    "endpoints.*.batch.price_factor": "What a call costs in a job, as a share of its price.",
    "endpoints.*.batch.max_calls": "Calls of one job.",
    "endpoints.*.batch.max_bytes": "Bytes of one job.",
    "endpoints.*.batch.max_tokens": "About how many tokens of prompts to one model may wait in jobs.",
    "endpoints.*.batch.poll_s": "Seconds between two looks at a job.",
    "endpoints.*.program": "With `api: command`: `claude`, `codex` or `llm`; see [command members](COMMANDS).",
    "endpoints.*.command": "With `api: command`: program and arguments; `{model}` and others in them are filled in.",
    "endpoints.*.args": "With `program`: further arguments.",
    "endpoints.*.env": "With `api: command`: the variables that the program gets beside the harmless ones, by name.",
    "endpoints.*.output": "With `command`: where its answer stands in the JSON that it prints; text if not given.",
    "endpoints.*.output.where": "Which object: the last one with these fields.",
    "endpoints.*.output.text": "The path of the answer. Required.",
    "endpoints.*.output.failed": "The path of what is true, or text, where it failed.",
    "endpoints.*.output.cost_usd": "The path of what it cost.",
    "endpoints.*.output.prompt_tokens": "The path of the tokens of the prompt.",
    "endpoints.*.output.completion_tokens": "The path of those of the answer.",
    "endpoints.*.output.cached_tokens": "The path of those that a cache knew.",
    "compact": "Who summarises earlier turns of a long conversation; see [compaction](#long-conversations).",
    "compact.model": "The same, beside `over_tokens`.",
    "compact.over_tokens": "How long a conversation may be; half of the smallest window if not given.",
    "redact": "What stays here: `email`, `phone`, `keys`, `{NAME: PATTERN}`; see [redaction](ENDPOINTS#redaction).",
    "log": "Runs with this recipe are kept, texts and all, for `fuse-log`; `FUSION_LOG` says it for all.",
    "search": "`provider`, `searxng`, `tavily`, `brave`, `exa`, `ddgs`: see [tools of members](TOOLS).",
    "fetch": "Which addresses `web_fetch` may take: `results`, `seen` or `any`.",
    "private_hosts": "Hosts, addresses and networks that `web_fetch` may reach although they are private.",
    "sandbox": "A command that shuts in what `bash` runs, in the place of bubblewrap: `srt --`.",
    "mcp": "MCP servers by name; `tools: [mcp:NAME]` gives their tools to members.",
    "mcp.*.command": "The program that speaks MCP, with its arguments.",
    "mcp.*.url": "Or where one speaks it, as streamable HTTP.",
    "mcp.*.env": "The variables that it gets beside the harmless ones, by name.",
    "mcp.*.key_env": "The variable with the key that is sent to the URL.",
    "mcp.*.tools": "The tools of it that may be used; all where none is named.",
    "mcp.*.pin": "The digest that its tools must have.",
    "mcp.*.repeatable": "Its tools only look things up: one run stands for all equal ones.",
    "mcp.*.start_s": "Longest wait for its start.",
    "mcp.*.timeout_s": "Longest wait for one call.",
    "models": "Aliases: a short name for a model, with its settings.",
    "models.*.model": "The model's name at its endpoint. Required.",
    "models.*.name": "What records call it; the alias where it is not given.",
    "models.*.endpoint": "Where it is asked; the recipe's endpoint where it is not given.",
    "models.*.samples": "How often it is asked.",
    "models.*.temperature": "Instead of the panel's, the judge's or the synthesizer's.",
    "models.*.top_p": "Nucleus sampling.",
    "models.*.tools": "What it may use as a member, instead of the panel's `tools`; an empty list is none.",
    "models.*.max_tokens": "Instead of the stage's.",
    "models.*.reasoning_effort": "`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`.",
    "models.*.system": "A system prompt for this model.",
    "models.*.extra": "Any other request parameters, sent as they are.",
    "models.*.fallbacks": "Models of the same endpoint to ask when this one fails, in this order.",
    "models.*.price_usd_per_mtok": "`{prompt: 0.1, completion: 0.3}`: dollars per million tokens.",
    "route.model": "The model that decides; short for `models`.",
    "panel.extra": "Any other request parameters for every member.",
    "panel.few_shot": "Worked turns put before a short question, so that a very small model answers in the right form.",
    "panel.few_shot.turns": "Pairs `{user: …, assistant: …}`. Required.",
    "panel.few_shot.system": "Instead of the panel's.",
    "panel.few_shot.max_chars": "A longer question is asked without the turns.",
    "panel.few_shot.unless": "A question with any of these words is asked without the turns.",
    "panel.few_shot.max_tokens": "Instead of the panel's, where the turns are used.",
    "panel.few_shot.samples": "Instead of the panel's, where the turns are used.",
    "panel.few_shot.temperature": "Instead of the panel's, where the turns are used.",
    "panel.few_shot.jitter": "Instead of the panel's, where the turns are used.",
    "judge.model": "One judge; short for `models`.",
    "synth.model": "The synthesizer; short for `models`.",
    "synth.extra": "Any other request parameters.",
    "vote.learned": "What each member's vote counts with `weighing: learned`; `fuse-tune` writes it.",
    "pick.model": "Who compares; short for `models`.",
}  # fmt: skip


# --- Tools ---


def tools() -> dict[str, str]:
    """Return the console scripts of the project: name and module."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return {name: target.partition(":")[0] for name, target in scripts.items()}


def help_block(tool: str) -> str:
    """Return a tool's help, at 100 columns."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "LANG": "C.UTF-8", "TERM": "dumb"}
    path = Path(sys.executable).with_name(tool)
    shown = subprocess.run([path, "--help"], env=env, capture_output=True, text=True, check=True).stdout
    return f"```text\n{shown.rstrip()}\n```"


def tools_table(folder: str) -> str:
    """Return the tools with links to their pages and the first sentence of their help."""
    rows = []
    for name, module in tools().items():
        command = import_module(module).main.command
        sentence = re.split(r"(?<=\.)\s", " ".join(prose(command.help).split()))[0]
        rows.append([f"[`{name}`]({folder}{name}.md)", sentence])
    return table(["Tool", "What it does"], rows)


def chat_commands() -> str:
    """Return what may be typed in `fuse-chat` beside questions."""
    from fusiontools.cli.chat_commands import USAGES

    return table(["Command", "What it does"], [[f"`{usage}`", about] for usage, about in USAGES])


def prose(text: str) -> str:
    """Return a help text without the examples that it begins with."""
    return next(part for part in text.split("\n\n") if not part.startswith("\b"))


def card(module: str) -> str:
    """Return the card of a stage: its first sentence, what it reads and adds, its calls, its failures, its sources."""
    text = inspect.cleandoc(ast.get_docstring(ast.parse(source(module).read_text())) or "")
    sentence, facts = text.split("\n\n")[:2]
    return f"{' '.join(sentence.split())}\n\n```text\n{facts}\n```"


def source(module: str) -> Path:
    """Return the file of a module of ours."""
    return ROOT / "fusiontools" / f"{module.replace('.', '/')}.py"


# --- Recipes ---


def recipe_keys(section: str | None = None, home: str = "") -> str:
    """Return the keys of recipes with option, default and meaning; of one section, or all of them."""
    rows = []
    for key, (default, flag) in all_keys().items():
        if section is None or key.startswith(f"{section}."):
            option = f"`{flag.names[-1].partition('/')[0]}`" if flag and flag.names else ""
            rows.append([f"`{key}`", option, default_cell(default), meaning(key, flag, home)])
    return table(["Key", "Option", "Default", "Meaning"], rows)


def all_keys() -> dict[str, tuple[Any, Flag | None]]:
    """Return every key of the recipe's schema, dotted, with its default and its option in the code."""
    schema = schemas.load("recipe")
    made: dict[str, Any] = {name: spec.options for name, spec in STAGES.items()}
    parts = {name: schema["$defs"][name]["properties"] for name in (*STAGES, "limits")}
    parts["endpoints.*"] = schema["$defs"]["endpoint"]["properties"]
    parts["endpoints.*.output"] = parts["endpoints.*"]["output"]["properties"]
    parts["endpoints.*.batch"] = parts["endpoints.*"]["batch"]["properties"]
    parts["models.*"] = schema["$defs"]["model"]["properties"]
    parts["panel.few_shot"] = parts["panel"]["few_shot"]["properties"]
    made |= {"limits": LimitOptions, "panel.few_shot": FewShot, "endpoints.*": Endpoint, "models.*": Model}
    made |= {"endpoints.*.output": CommandOutput, "endpoints.*.batch": BatchTerms}
    parts["mcp.*"], made["mcp.*"] = schema["$defs"]["mcp_server"]["properties"], McpServer
    nested = {key.partition(".")[0] for key in parts}
    keys: dict[str, tuple[Any, Flag | None]] = {}
    for key in schema["properties"]:
        if key not in nested:
            keys[key] = (getattr(Recipe(""), key, None), None)
        for part in (name for name in parts if name.partition(".")[0] == key):
            if key in MEANINGS and key not in keys:
                keys[key] = (None, None)
            declared = fields_of(made[part])
            for name in parts[part]:
                keys[f"{part}.{name}"] = declared.get(name, (None, None))
    return keys


def fields_of(cls: Any) -> dict[str, tuple[Any, Flag | None]]:
    """Return the fields of a class with their defaults, None where they have none that can be written, and options."""
    if issubclass(cls, Struct):
        no_defaults = [None] * (len(cls.__struct_fields__) - len(cls.__struct_defaults__))
        defaults = [default if is_plain(default) else None for default in (*no_defaults, *cls.__struct_defaults__)]
        return {name: (default, None) for name, default in zip(cls.__struct_fields__, defaults, strict=True)}
    return {
        field.name: (None if field.default is dataclasses.MISSING else field.default, field.metadata.get("flag"))
        for field in dataclasses.fields(cls)
    }


def is_plain(default: Any) -> bool:
    """Return whether a default is a value, and not what makes one."""
    return default is None or isinstance(default, str | int | float | tuple)


def default_cell(default: Any) -> str:
    """Return a default as a recipe writes it."""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return f"`{default:g}`"
    return f"`{default}`" if isinstance(default, str) and default else "–"


def meaning(key: str, flag: Flag | None, home: str) -> str:
    """Return what a key means: the help of its option, else what stands above."""
    if key in MEANINGS:
        return (
            MEANINGS[key]
            .replace("CHAINS", f"{home}chains.md")
            .replace("ENDPOINTS", f"{home}endpoints.md")
            .replace("COMMANDS", f"{home}command-members.md")
            .replace("TOOLS", f"{home}tools-of-members.md")
            .replace("BATCHES", f"{home}batches.md")
        )
    if flag is None:
        raise KeyError(f"{key}: say in MEANINGS of docs/blocks.py what this recipe key means")
    return flag.help.replace("[default: ", "[where none is given: ")


def shipped_recipes() -> str:
    """Return the shipped recipes: who sits where, and how many calls one question takes at most."""
    rows = []
    for name in recipe_yaml.recipe_names():
        recipe = recipe_yaml.load_recipe(name)
        panel, others = calls_of(recipe)
        members, judges, writers = (
            ", ".join(named(model, times) for model in models) or "–"
            for models, times in (
                (recipe.panel.members, recipe.panel.samples),
                (recipe.judge.models, 1),
                (recipe.synth.models, 1),
            )
        )
        judge = "code" if recipe.judge.method == "lexical" else judges
        link = f"[`{name}`](../configs/{name}.yaml)"
        rows.append([link, f"`{recipe.chain}`", members, judge, writers, f"{panel} + {others}", recipe.description])
    return table(["Recipe", "Chain", "Panel", "Judge", "Synthesizer", "Calls", "What for"], rows)


def named(model: Model, times: int) -> str:
    """Return a model's name, and how often it is asked."""
    count = model.samples * times
    return f"`{model.name}`" + (f" × {count}" if count > 1 else "")


def calls_of(recipe: Recipe) -> tuple[int, int]:
    """Return how many calls of members, and how many others, a question takes at most."""
    steps = parse(recipe.chain)
    samples = sum(model.samples * recipe.panel.samples for model in recipe.panel.members)
    guarded = recipe.synth.guard or any(step.given.get("guard") for step in steps)
    judges = 0 if recipe.judge.method == "lexical" else len(recipe.judge.models)
    counts = {"panel": 0, "judge": judges, "synth": len(recipe.synth.models) + 2 * guarded}
    others = sum(counts.get(step.name, 0) for step in steps) + int(recipe.panel.agree == "judge")
    return samples * sum(step.name == "panel" for step in steps), others


def example(name: str, language: str) -> str:
    """Return a file of `examples/`."""
    return f"```{language}\n{(ROOT / 'examples' / name).read_text().rstrip()}\n```"


def templates() -> str:
    """Return the names of the prompt templates, as one sentence."""
    return "The shipped templates are " + ", ".join(f"`{name}`" for name in template_names()) + "."


def endpoints() -> str:
    """Return the endpoints that are known by name."""
    rows = []
    for e in ENDPOINTS.values():
        where = f"`{e.base_url}`" if e.base_url else "in this process"
        costs = "free" if e.free else "what it says" if e.name == "openrouter" else "price list"
        rows.append([f"`{e.name}`", where, f"`{e.api_key_env}`" if e.api_key_env else "–", costs])
    return table(["Endpoint", "Base URL", "Key", "Costs"], rows)


# --- Records, failures, servers ---


def fields(name: str, part: str = "") -> str:
    """Return the keys of a schema, with what the schema says of each; `part` is one of its definitions."""
    schema = schemas.load(name)
    where = schema["$defs"][part] if part else schema.get("items", schema)
    required = where.get("required", [])
    rows = [
        [f"`{key}`", kind(value), "yes" if key in required else "", value.get("description", "")]
        for key, value in where["properties"].items()
    ]
    return table(["Key", "Type", "Always", "What it holds"], rows)


def kind(value: Mapping[str, Any]) -> str:
    """Return a schema's type in a few words."""
    if "enum" in value:
        return ", ".join(f"`{json.dumps(word).strip(chr(34))}`" for word in value["enum"])
    if "$ref" in value:
        return value["$ref"].partition(".")[0].removeprefix("#/$defs/").replace("_", " ")
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(kind(form) for form in value["anyOf"]))
    types = value.get("type", "any")
    if types == "array" and "items" in value:
        return f"list of {kind(value['items'])}"
    return " or ".join(types) if isinstance(types, list) else types


def exit_statuses() -> str:
    """Return the exit statuses."""
    return table(["Status", "Meaning"], [[str(status), text] for status, text in EXITS.items()])


def failure_codes() -> str:
    """Return the codes that a record can hold."""
    return table(
        ["Code", "Where", "Meaning"], [[f"`{code}`", row.where, row.meaning] for code, row in FAILURE_CODES.items()]
    )


def api_codes() -> str:
    """Return what a server refuses with."""
    rows = [[str(status), f"`{code}`", text] for status, code, text in API_CODES]
    return table(["Status", "Code", "When"], rows)


def request_parameters() -> str:
    """Return who gets each parameter of a request."""
    return table(["Parameter", "Who gets it"], [[f"`{name}`", whose] for name, whose in params.POLICY.items()])


def overrides() -> str:
    """Return the keys of a request's `fusion` object."""
    properties = schemas.load("fusion")["properties"]
    return table(["Key", "What it says"], [[f"`{key}`", value["description"]] for key, value in properties.items()])


def routes() -> str:
    """Return the server's routes."""
    paths = json.loads((ROOT / "schemas" / "openapi.json").read_text())["paths"]
    rows = [
        [f"`{method.upper()} {path}`", f"{operation['summary']}."]
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]
    return table(["Route", "What it does"], rows)


def metrics() -> str:
    """Return the metrics with their labels."""
    from fusiontools.server.metrics import METRICS

    rows = []
    for spec in METRICS:
        name = spec.name + ("_total" if spec.kind == "counter" else "")
        rows.append([f"`{name}`", ", ".join(f"`{label}`" for label in spec.labels), spec.about])
    return table(["Metric", "Labels", "What it counts"], rows)


# --- Evaluation and the house ---


def task_sets() -> str:
    """Return the sets that `fuse-tasks` knows."""
    import yaml

    rows = []
    for name, spec in yaml.safe_load((ROOT / "configs/tasks/sets.yaml").read_text())["sets"].items():
        commit = f"`{spec['revision'][:12]}`" if spec.get("revision") else "–"
        split = next(iter(spec.get("splits", {"": spec}).values()))
        gated = " (gated)" if spec.get("gated") else ""
        rows.append([f"`{name}`{gated}", f"{split['tasks']:,}", spec["source"], spec["licence"], commit, spec["about"]])
    return table(["Set", "Tasks", "Source", "Licence", "Commit", "What it is"], rows)


def rooms() -> str:
    """Return the rooms of the package, the highest first, with the sentence that each says of itself."""
    return table(["Room", "What it is"], [[f"`{name}`", text] for name, text in room_sentences()])


def room_sentences() -> Iterator[tuple[str, str]]:
    """Yield each room and its sentence."""
    for names in floors():
        for name in names.split():
            folder = ROOT / "fusiontools" / name
            path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            yield f"{name}/" if folder.is_dir() else f"{name}.py", " ".join(text.split("\n\n")[0].split())


def floors() -> tuple[str, ...]:
    """Return the floors of the house as its test lists them, the highest first."""
    tree = ast.parse((ROOT / "tests/house/test_house.py").read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "FLOORS"]
    lowest_first: tuple[str, ...] = ast.literal_eval(values[0])
    return tuple(reversed(lowest_first)) if "errors" in lowest_first[0] else lowest_first


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(heads)]
    lines += [["---"] * len(lines[0])]
    lines += [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
