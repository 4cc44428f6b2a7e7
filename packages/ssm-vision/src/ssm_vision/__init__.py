"""State space models for images: models by name, a patch classifier with any mixer, data sets,
pictures.

Importing this package imports torch and ssm_core; timm, torchvision, scikit-learn, pyarrow and
matplotlib are imported where they are used. timm gets to know our models as soon as both are
imported, in either order (`ssm_vision.timm_hook`).
"""

from __future__ import annotations

from ssm_vision.classification import Classification, ClassificationOptions
from ssm_vision.classifier import PatchClassifier, PatchClassifierConfig
from ssm_vision.official.families import from_official
from ssm_vision.timm_hook import register_with_timm
from ssm_vision.visualize import delta_map
from ssm_vision.zoo import create_model, families, list_models

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "ClassificationOptions",
    "PatchClassifier",
    "PatchClassifierConfig",
    "create_model",
    "delta_map",
    "families",
    "from_official",
    "list_models",
]

register_with_timm()
