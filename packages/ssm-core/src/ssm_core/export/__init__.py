"""Trained models for other programs: torch.export and ONNX, with batch and length left open."""

from ssm_core.export.graphs import Axes, Graph, model_graph

__all__ = ["Axes", "Graph", "model_graph"]
