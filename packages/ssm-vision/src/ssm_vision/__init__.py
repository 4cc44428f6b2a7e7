"""State space models for images: a patch classifier with any mixer, data sets, pictures.

Importing this package imports torch and ssm_core; torchvision, scikit-learn, pyarrow and matplotlib
are imported where they are used.
"""

from __future__ import annotations

from ssm_vision.classification import Classification, ClassificationOptions
from ssm_vision.classifier import PatchClassifier, PatchClassifierConfig
from ssm_vision.presets import create_model, list_models
from ssm_vision.visualize import delta_map

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "ClassificationOptions",
    "PatchClassifier",
    "PatchClassifierConfig",
    "create_model",
    "delta_map",
    "list_models",
]
