"""`ssm-prune`: plan, report, export, bench and verify."""
