"""`ssm-train`: list, show, fit, eval, report and the commands of plugins."""

from ssm_core.cli.main import main

__all__ = ["main"]
