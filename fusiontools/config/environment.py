"""The environment variables that are ours: what each means, and what is said of one that nobody reads."""

from __future__ import annotations

from collections.abc import Iterable

from fusiontools.errors import nearest

PREFIX = "FUSION_"
#: Those that a tool reads.
VARIABLES = {
    "FUSION_CONFIG": "The recipe where `-c` is not given: a name or a path.",
    "FUSION_BASE_URL": "Takes every call, but those of the embedded model, to this server.",
    "FUSION_API_KEY": "The key for `FUSION_BASE_URL`; without that, for OpenRouter.",
    "FUSION_TRANSPORT": "`httpx`: calls go over httpx's own transport, as they do over a proxy.",
    "FUSION_LOCAL_MODEL": "A GGUF file for the embedded engine.",
    "FUSION_SERVER_API_KEYS": "The keys that may ask `fuse-serve`, with commas between them.",
    "FUSION_SERVER_API_KEY": "The same; where both are set, the keys of both.",
    "FUSION_HOST": "Where `fuse-serve` listens, without `--host`.",
    "FUSION_PORT": "The port of `fuse-serve`, without `--port`.",
}
#: Those that the settings of clients read (`examples/clients`).
_OF_CLIENTS = (
    *("FUSION_SERVER", "FUSION_SERVER_KEY", "FUSION_API_BASE", "FUSION_MODEL", "FUSION_SMALL_MODEL"),
    "FUSION_CLIENTS",
)


def explain_unread(names: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that looks like ours and that nobody reads."""
    known = [*VARIABLES, *_OF_CLIENTS]
    strange = [name for name in sorted(names) if name.startswith(PREFIX) and name not in known]
    return [f"the environment variable {name} is read by nobody{nearest(name, list(VARIABLES))}" for name in strange]
