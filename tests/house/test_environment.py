"""How the project sets itself up: the lock follows pyproject.toml, and `make help` knows every target."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from workdir import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ROOT / "requirements"
#: Those that the tests are made with; Ray is too big to be one of them.
EXTRAS = [name for name in PROJECT["project"]["optional-dependencies"] if name != "ray"]


def locked(name: str) -> dict[str, list[Requirement]]:
    """Return the packages that a lock holds; one may stand there several times, for several Pythons."""
    found: dict[str, list[Requirement]] = {}
    for line in (LOCKS / name).read_text().splitlines():
        if re.match(r"\w", line):
            requirement = Requirement(line.removesuffix("\\"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def wanted(extras: list[str], groups: list[str]) -> list[Requirement]:
    """Return what pyproject.toml asks for with these extras and groups."""
    extra, group = PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]
    texts = [*PROJECT["project"]["dependencies"], *(text for name in extras for text in extra[name])]
    texts += [text for name in groups for text in group[name] if isinstance(text, str)]
    return [Requirement(text) for text in texts if not text.startswith("fusiontools[")]


@pytest.mark.parametrize(
    ("lock", "extras", "groups"),
    [
        ("demo.txt", ["local"], ["backend"]),
        ("dev.txt", EXTRAS, list(PROJECT["dependency-groups"])),
        ("ray.txt", [*EXTRAS, "ray"], list(PROJECT["dependency-groups"])),
    ],
)
def test_what_the_project_asks_for_is_locked(lock: str, extras: list[str], groups: list[str]) -> None:
    held = locked(lock)

    for requirement in wanted(extras, groups):
        pins = held.get(canonicalize_name(requirement.name))
        assert pins, f"{requirement.name} is not in requirements/{lock}: `make lock`"
        for pin in pins:
            [exact] = pin.specifier
            assert requirement.specifier.contains(exact.version, prereleases=True), f"{pin}: `make lock`"


@pytest.mark.parametrize(("smaller", "larger"), [("demo.txt", "dev.txt"), ("dev.txt", "ray.txt")])
def test_the_packages_of_a_smaller_environment_are_those_of_the_larger(smaller: str, larger: str) -> None:
    some, more = locked(smaller), locked(larger)

    assert {name: [str(pin.specifier) for pin in pins] for name, pins in some.items()} == {
        name: [str(pin.specifier) for pin in more[name]] for name in some
    }


@pytest.mark.parametrize("lock", ["demo.txt", "dev.txt", "ray.txt"])
def test_a_lock_names_no_registry_and_knows_every_file_by_its_hash(lock: str) -> None:
    text = (LOCKS / lock).read_text()

    assert "://" not in text
    for line in text.splitlines():
        if re.match(r"\w", line):
            assert line.endswith("\\"), f"no hash of {line}"


def test_the_help_lists_every_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    listed = subprocess.run(["make", "help"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout

    assert {line.split()[1] for line in listed.splitlines()} == set(phony.split())
