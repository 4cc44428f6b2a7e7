"""Trained models for other programs: torch.export and ONNX, with batch and length left open.

from ssm_core.export import export_onnx, model_graph, onnx_outputs
graph = model_graph(model, info)                     # images of one size in, logits out
export_onnx(graph, Path("model.onnx"))
logits, = onnx_outputs(Path("model.onnx"), {"inputs": images})
"""

from ssm_core.export.graphs import Axes, Graph, model_graph
from ssm_core.export.program import export_program
from ssm_core.export.to_onnx import export_onnx, onnx_outputs

__all__ = ["Axes", "Graph", "export_onnx", "export_program", "model_graph", "onnx_outputs"]
