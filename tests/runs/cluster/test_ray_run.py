"""What a run on Ray leaves on a machine, without Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from fusiontools.runs.cluster.ray_run import own_folder

HOLDER = """
import pathlib, sys, time
from fusiontools.runs.cluster.ray_run import own_folder
print(own_folder(pathlib.Path(sys.argv[1])), flush=True)
time.sleep(600)
"""


def test_folders_of_killed_runs_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "fuse-ray-just-made").mkdir()
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        (theirs / "session").mkdir()
        meanwhile = own_folder(tmp_path)
        lived = theirs.is_dir()
        process.send_signal(signal.SIGKILL)

    later = own_folder(tmp_path)

    assert lived
    assert {path.name for path in tmp_path.iterdir()} == {
        "fuse-ray-just-made",
        "other",
        Path(meanwhile).name,
        Path(later).name,
    }
