"""Prompt templates: which there are, and what stands in one.

A template is a Markdown file with sections such as `# judge system` and `# judge user`, two for everything that is
asked with a prompt of its own; the ones it lacks are those of `default`.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from fusiontools.errors import UsageError, nearest
from fusiontools.record.schemas import data_dir

#: What is asked with a prompt of its own; each has a `system` and a `user` section.
ASKED = (
    *("judge", "synth", "revise", "debate", "refine", "duel", "pick", "consistent", "agree", "route", "compact"),
    "criterion",
)
#: What is added to a system section where somebody may look things up, or has; where claims are asked for, or weighed.
ADDED = ("member tools", "judge sources", "synth sources", "judge claims", "synth support")
#: What an agent reads first, and what those who advise it do.
AGENT = ("agent system", "agent plan", "agent advice", "agent adviser")
#: How an agent's question is put to the panel, where it is about answers that are there already.
PUT = ("second opinion", "comparison")
#: What a member is told whose response has failed a person's check.
AGAIN = ("check failed",)
SECTIONS = (*(f"{asked} {role}" for asked in ASKED for role in ("system", "user")), *ADDED, *AGENT, *PUT, *AGAIN)
_HEADING = re.compile(rf"^# ({'|'.join(SECTIONS)})[ \t]*\n", re.MULTILINE)


def template_names() -> list[str]:
    """Return the names of the shipped templates."""
    return sorted(path.stem for path in (data_dir("configs") / "prompts").glob("*.md"))


def is_template_name(template: str) -> bool:
    """Return whether a template is spelled as a name, which is never a path."""
    return re.fullmatch(r"[A-Za-z0-9_-]+", template) is not None


@functools.cache
def load_template(template: str) -> dict[str, str]:
    """Return a template's sections.

    Args:
        template: a shipped name, or the path of a Markdown file.
    """
    shipped = data_dir("configs") / "prompts" / f"{template}.md"
    by_name = is_template_name(template)
    path = shipped if by_name else Path(template)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if by_name:
            raise UsageError(
                f"no prompt template is called {template!r}{nearest(template, template_names())}"
            ) from None
        raise UsageError(f"{template}: cannot read the prompt template: {error}") from error
    pieces = _HEADING.split(text)
    sections = {name: body.strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}
    if not sections:
        raise UsageError(f"{path}: no section of a prompt template in it, such as `# {SECTIONS[0]}`")
    return sections if template == "default" else {**load_template("default"), **sections}
