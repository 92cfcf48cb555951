"""What `fuse-ray` can be told."""

from __future__ import annotations

from fusiontools.config.options import Settings, option


class RayOptions(Settings):
    """What `fuse-ray` can be told."""

    chain: str | None = option(
        None,
        "--chain",
        metavar="TEXT",
        help="Tools without their prefix: 'panel -m a -m b | vote'.  [default: the recipe's]",
    )
    output: str | None = option(
        None, "-o", "--output", metavar="FOLDER", help="Where the records go: a folder or an address."
    )
    format: str = option("jsonl", "--format", choices=("jsonl", "parquet"), help="How they are written.")
    workers: int | None = option(
        None, "--workers", minimum=1, metavar="N", help="Processes.  [default: one for each CPU]"
    )
    jobs: int = option(64, "-j", "--jobs", minimum=1, metavar="N", help="Records that each works on at once.")
    block: int = option(
        100, "--block", minimum=1, metavar="N", help="Records of a block, which is written as one file."
    )
    shared: bool = option(False, "--shared-paths", help="Paths without an address are the same on every machine.")
    strict: bool = option(False, "--strict", help="Exit 1 where any record is degraded.")
    quiet: bool = option(False, "-q", "--quiet", help="No progress, no notes; errors only.")
    max_line_mib: float = option(32.0, "--max-line-mib", minimum=0.0001, metavar="MIB", help="Refuse longer lines.")
