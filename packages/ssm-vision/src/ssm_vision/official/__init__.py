"""Models from checkpoints of the original repositories."""
