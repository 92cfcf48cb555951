"""Which worker has a run does not matter: a member is stopped by whichever of them is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fusiontools.server.protocols.exchange import ApiError
from fusiontools.server.runs_under_way import RunsUnderWay


@dataclass
class Writing:
    """A job in which one member writes."""

    member: str
    stopped: list[str] = field(default_factory=list)

    @property
    def drafts(self) -> Writing:
        return self

    def stop(self, member: str) -> bool:
        self.stopped.append(member)
        return member == self.member


def told(folder: Path, caller: str, run: str, member: str) -> list[str]:
    """Tell a worker to stop a member of what another one has under way; return what that one's job was told."""
    job: Any = Writing("fake/a")

    async def tell() -> None:
        one, other, third = (RunsUnderWay(folder) for _ in range(3))
        async with one.listening(), other.listening(), third.listening():
            with one.running("me", "run-1", job):
                await other.stop(caller, run, member)

    asyncio.run(tell())
    return job.stopped  # type: ignore[no-any-return]


def test_another_worker_than_the_runs_stops_a_member(tmp_path: Path) -> None:
    assert told(tmp_path, "me", "run-1", "fake/a") == ["fake/a"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("caller", "run", "member", "param"),
    [
        ("another", "run-1", "fake/a", "run"),
        ("me", "run-2", "fake/a", "run"),
        ("me", "run-1", "fake/b", "member"),
        ("me", "run-1", "x" * 2000, "run"),
    ],
)
def test_nobody_stops_what_is_not_theirs_or_is_not_there(
    tmp_path: Path, caller: str, run: str, member: str, param: str
) -> None:
    with pytest.raises(ApiError) as refused:
        told(tmp_path, caller, run, member)

    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "run_not_found", param)


def test_a_worker_that_has_died_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "dead.runs").touch()

    assert told(tmp_path, "me", "run-1", "fake/a") == ["fake/a"]


def test_where_workers_cannot_listen_the_server_starts_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()

    with pytest.raises(ApiError):
        told(deep, "me", "run-1", "fake/a")

    assert "cannot stop a member" in capsys.readouterr().err
