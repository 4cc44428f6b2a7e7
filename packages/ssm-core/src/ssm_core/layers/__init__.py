"""Sequence layers, one file each, all with the protocol of `ssm_core.layers.protocol`."""
