"""The environment variables that are ours, which `docs/command-line.md` explains; and what nobody reads of them."""

from __future__ import annotations

from collections.abc import Iterable

from fusiontools.errors import nearest

PREFIX = "FUSION_"
#: Those that a tool reads.
VARIABLES: tuple[str, ...] = (
    "FUSION_CONFIG",
    "FUSION_BASE_URL",
    "FUSION_API_KEY",
    "FUSION_TRANSPORT",
    "FUSION_LOCAL_MODEL",
    "FUSION_LOG",
    "FUSION_STATE",
    "FUSION_FENCE_SECRET",
    "FUSION_SERVER_API_KEYS",
    "FUSION_SERVER_API_KEY",
    "FUSION_HOST",
    "FUSION_PORT",
)
#: Those that the settings of clients read (`examples/clients`).
OF_CLIENTS = (
    *("FUSION_SERVER", "FUSION_SERVER_KEY", "FUSION_API_BASE", "FUSION_MODEL", "FUSION_SMALL_MODEL"),
    "FUSION_CLIENTS",
)


def explain_unread(names: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that looks like ours and that nobody reads."""
    known = [*VARIABLES, *OF_CLIENTS]
    strange = [name for name in sorted(names) if name.startswith(PREFIX) and name not in known]
    return [f"the environment variable {name} is read by nobody{nearest(name, list(VARIABLES))}" for name in strange]
