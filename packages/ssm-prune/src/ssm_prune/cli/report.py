"""`ssm-prune report RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssm_core.cli.parsing import OneLineParser
from ssm_core.cli.tables import print_columns


def report_command(words: Sequence[str]) -> int:
    """Complete prune_report.json of a run, write its page, show the costs."""
    from ssm_prune.report_run import PAGE, REPORT, report_run
    from ssm_prune.report_tables import costs_table

    parser = OneLineParser(
        prog="ssm-prune report", description="What pruning did to a run: one page, one JSON file."
    )
    parser.add_argument("run", type=Path, help="folder of a pruned run")
    run = parser.parse_args(list(words)).run
    report = report_run(run)
    table = costs_table(report)
    print_columns([[*map(str, row)] for row in (table.header, *table.rows) if table.rows])
    for line in (report["note"], *report["problems"], run / PAGE, run / REPORT):
        print(line)
    return 0
