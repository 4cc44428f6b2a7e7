"""What runs achieved: tables, curves and pictures, as files and as one page.

facts.py       what a run folder says about its run
throughput.py  examples per second, from the run's log or measured now
figures.py     training curves; the metric against parameters and throughput
page.py        the page, report.html
parts.py       what pages are made of
style.py       its looks
write.py       puts the report together
"""

from __future__ import annotations

from ssm_core.train.report.facts import run_names
from ssm_core.train.report.write import HEADER, Report, report

__all__ = ["HEADER", "Report", "report", "run_names"]
