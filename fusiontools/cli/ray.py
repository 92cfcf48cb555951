"""`fuse-ray`: a chain over files of records, in many processes on many machines."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.ray_options import RayOptions
from fusiontools.config.stage_table import BatchOptions, JournalOptions, LimitOptions
from fusiontools.config.tool_options import ToolOptions

_TOOL = "fuse-ray"
HELP = """\
\b
  fuse-ray --chain "panel | judge | synth" -c budget 's3://bucket/questions/*.jsonl' -o s3://bucket/answers
  fuse-ray -c budget questions/ -o answers --workers 4

Take files of records through a whole chain, on Ray: on this machine, or on the cluster of RAY_ADDRESS.

Reads JSON Lines (.gz, .bz2 and .zst, too) and Parquet, from files, folders, patterns and addresses (s3://, gs://). The
output is a folder: answered records in it, failed ones in its folder `failed`. The same command again does what is not
done: failed records once more, and no finished call twice, for calls that the journal holds are never bought
(`--replay` is always on).
"""


@command(_TOOL, RayOptions, ToolOptions, LimitOptions, JournalOptions, BatchOptions, help=HELP, arguments="FILE...")
def main(
    files: tuple[str, ...],
    config: str | None,
    ray: dict[str, Any],
    tool: dict[str, Any],
    limit: dict[str, Any],
    batch: dict[str, Any],
    journal: dict[str, Any],
) -> None:
    from fusiontools.cli.command import leave
    from fusiontools.cli.ray_run import RayRun
    from fusiontools.cli.setup import batch_options
    from fusiontools.errors import UsageError

    options = RayOptions(**ray)
    if not files:
        raise UsageError("name the files of records, or the folders that they are in")
    if options.output is None:
        raise UsageError("-o FOLDER: where do the records go?")
    leave(RayRun(options, config, tool, limit, journal, batch_options(batch)).run(files))
