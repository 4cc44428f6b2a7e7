"""The training engine behind `ssm-train`: configuration, loop, checkpoints, reports."""
