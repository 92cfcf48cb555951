"""Which files of a project an agent may change, and which of them nobody keeps."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from msgspec import Struct

LINKED = "{} has another name elsewhere (a hard link), which would change, too"
#: Files that something runs later, outside of every sandbox: hooks, what a shell or an editor loads, CI, other agents.
_RUN_LATER = frozenset(
    {
        # A folder with a HEAD may be a repository of its own, whose config git obeys.
        *(
            ".git",
            "head",
            ".gitmodules",
            ".envrc",
            ".vscode",
            ".idea",
            ".devcontainer",
            ".devcontainer.json",
            ".mcp.json",
        ),
        *(".claude", ".codex", ".cursor", ".gemini", ".husky", ".pre-commit-config.yaml", ".github", ".gitlab-ci.yml"),
        *(".circleci", ".travis.yml", ".buildkite", ".woodpecker", ".drone.yml", "azure-pipelines.yml", "jenkinsfile"),
    }
)
#: What nobody keeps where no `.gitignore` says so.
_CACHES = frozenset(
    {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "node_modules", ".tox", ".venv"}
)


class Rules(Struct, frozen=True):
    """Which files may not be changed.

    Args:
        allowed: patterns of files that something runs later and that may be changed all the same.
        protected: patterns of files that may not.
    """

    allowed: Sequence[str] = ()
    protected: Sequence[str] = ()

    def why_not(self, path: str) -> str | None:
        """Return why a file may not be changed, or None."""
        if pattern := next((pattern for pattern in self.protected if matches(path, pattern)), None):
            return f"{path} is protected (--protect {pattern})"
        if runs_later(path) and not any(matches(path, pattern) for pattern in self.allowed):
            return f"{path} is run later, outside of the sandbox; only --allow lets it be changed"
        return None


def runs_later(path: str) -> bool:
    """Return whether something outside of every sandbox runs or obeys what stands in a file."""
    return any(part.lower() in _RUN_LATER for part in path.split("/"))


def is_cache(path: str) -> bool:
    """Return whether a path is one that nobody keeps, whatever its project says."""
    return any(part in _CACHES for part in path.split("/")) or path.endswith(".pyc")


def matches(path: str, pattern: str) -> bool:
    """Return whether a pattern means a path, or a directory in which it is; one without a slash means any name."""
    pattern = pattern.removeprefix("./").rstrip("/")
    parts = path.split("/")
    if "/" in pattern:
        return any(fnmatch.fnmatchcase("/".join(parts[: i + 1]), pattern) for i in range(len(parts)))
    return any(fnmatch.fnmatchcase(part, pattern) for part in parts)
