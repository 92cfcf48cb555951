"""What a user installs: wheel and sdist hold everything, and a pipeline runs from the wheel, away from the checkout."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from workdir import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("schemas/*.json", "configs/*.yaml", "configs/prompts/*.md")
    for path in ROOT.glob(pattern)
)
PROGRAM = """\
import asyncio
import fusiontools
record: fusiontools.Record = asyncio.run(fusiontools.fuse("What is the capital of Peru?", "local"))
text: str = record["answer"]["content"]
print(text)
"""


def find(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a freshly built wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    # The build environment is fetched, unless the backend happens to be here already.
    options = ["--no-isolation"] if find("hatchling") else []
    command = [sys.executable, "-m", "build", "--wheel", "--sdist", *options, "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel; the packages it depends on are borrowed from the running one."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file comes last and brings no .pth file of its own: an editable install stays out.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture
def away(installed: Path, env: dict[str, str]) -> dict[str, str]:
    """The environment of a user who has installed the wheel and no key."""
    kept = {name: value for name, value in env.items() if name not in ("FUSION_BASE_URL", "FUSION_API_KEY")}
    return {**kept, "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}"}


def test_wheel_holds_code_and_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert {"fusiontools/__init__.py", "fusiontools/py.typed"} <= names
    assert {f"fusiontools/data/{name}" for name in DATA} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}

    # `.data` are the man pages.
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"fusiontools"}


def test_wheel_holds_a_man_page_for_each_tool(wheel: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    with zipfile.ZipFile(wheel) as archive:
        pages = {Path(n).stem: archive.read(n).decode() for n in archive.namelist() if "/data/share/man/man1/" in n}

    assert set(pages) == set(scripts)
    for name, page in pages.items():
        assert page.startswith(f".TH {name.upper()} 1 ")
        assert re.findall(r"^\.SH (NAME|SYNOPSIS|DESCRIPTION|SEE ALSO)$", page, re.MULTILINE) == [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "SEE ALSO",
        ]
        assert "\\-\\-help" in page, "the options"


def test_sdist_holds_what_a_checkout_holds(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    documents = {path.name for path in ROOT.glob("*.md")} | {"LICENSE", "Makefile", "pyproject.toml", "docs/index.md"}
    documents.add("requirements/dev.txt")
    assert {*DATA, *documents, "fusiontools/py.typed", "examples/demo.sh", "tests/conftest.py"} <= names


def test_pipeline_runs_from_the_wheel(run: Run, away: dict[str, str]) -> None:
    done = run("echo 'What is the capital of Peru?' | fuse-panel -c local | fuse-judge | fuse-synth", env=away)

    (record,) = done.records
    assert record["answer"]["content"]
    assert run("fuse-cost", done.out, env=away).status == 0


def test_data_is_read_from_the_package(run: Run, away: dict[str, str], installed: Path) -> None:
    done = run(
        ["python", "-c", "from fusiontools.record.schemas import data_dir; print(data_dir('schemas'))"], env=away
    )

    assert Path(done.text.strip()).is_relative_to(installed.parent)


def test_every_console_script_is_installed(installed: Path) -> None:
    assert {path.name for path in installed.glob("fuse-*")} >= {"fuse-panel", "fuse-judge", "fuse-synth", "fuse-cost"}


def test_library_runs_and_type_checks_from_the_wheel(
    run: Run, away: dict[str, str], installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    assert run(["python", "program.py"], env=away).text.strip()
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(installed / "python"), "program.py"]
    assert run(check).text.startswith("Success")
    (tmp_path / "program.py").write_text(PROGRAM.replace("text: str", "text: int"))
    assert "Incompatible types" in run(check).text
