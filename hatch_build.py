"""What a wheel carries beside the package: a man page for each tool, made from the click command of its `--help`."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ManFormatter(click.HelpFormatter):
    """Writes what click says of a command as roff, in the place of columns."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        self.write(f".SH SYNOPSIS\n.B {escape(prog)}\n{escape(args)}\n.SH DESCRIPTION\n")

    def write_heading(self, heading: str) -> None:
        self.write(f".SH {escape(heading).upper()}\n")

    def write_paragraph(self) -> None:
        self.write(".PP\n")

    def write_text(self, text: str) -> None:
        for paragraph in text.split("\n\n"):
            if paragraph.startswith("\b"):
                self.write(f".nf\n{escape(paragraph[1:].strip(chr(10)))}\n.fi\n.PP\n")
            else:
                self.write(f"{escape(' '.join(paragraph.split()))}\n.PP\n")

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        for term, meaning in rows:
            self.write(f".TP\n.B {escape(term)}\n{escape(' '.join(meaning.split()))}\n")

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self.write_heading(name)
        yield


def escape(text: str) -> str:
    """Return text that roff shows as it stands."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.split("\n"))


def man_page(command: click.Command, others: Sequence[str], version: str) -> str:
    """Return the man page of a command."""
    name = str(command.name)
    formatter = ManFormatter()
    command.format_help(click.Context(command, info_name=name, **command.context_settings), formatter)
    sentence = next(part for part in str(command.help).split("\n\n") if not part.startswith("\b")).split(". ")[0]
    sentence = " ".join(sentence.split()).rstrip(".")
    head = f'.TH {name.upper()} 1 "" "fusiontools {version}"\n.SH NAME\n{name} \\- {escape(sentence)}\n'
    beside = ", ".join(f".BR {other} (1)" for other in others if other != name).replace(", ", " ,\n")
    status = "" if "Exit status" in str(command.help) else exit_statuses()
    return f"{head}{formatter.getvalue()}{status}.SH SEE ALSO\n{beside}\n"


def exit_statuses() -> str:
    """Return the section about exit statuses, for tools whose help has none."""
    from fusiontools.errors import EXITS

    return ".SH EXIT STATUS\n" + "".join(f".TP\n.B {status}\n{escape(text)}\n" for status, text in EXITS.items())


class ManPages(BuildHookInterface):  # type: ignore[type-arg]
    """Puts `share/man/man1/fuse-*.1` into a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        scripts = self.metadata.core.scripts
        self._folder = tempfile.TemporaryDirectory()
        for name, target in scripts.items():
            page = Path(self._folder.name) / f"{name}.1"
            command = import_module(target.partition(":")[0]).main.command
            page.write_text(man_page(command, list(scripts), self.metadata.version))
            build_data["shared_data"][str(page)] = f"share/man/man1/{name}.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._folder.cleanup()
