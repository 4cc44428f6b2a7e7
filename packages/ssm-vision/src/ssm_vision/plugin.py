"""What this package offers to `ssm-train`: the only file that knows about hooks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ssm_core import (
    BenchmarkSpec,
    CommandSpec,
    DatasetSpec,
    ExportSpec,
    MixerSpec,
    ModelSpec,
    Picture,
    RecipeSpec,
    Remark,
    TaskSpec,
    hookimpl,
    recipes_in,
)
from ssm_core.specs import NoOptions
from ssm_vision import (
    benchmark,
    classification,
    classifier,
    delta_command,
    exports,
    report,
    segmentation,
)
from ssm_vision.data import (
    cifar10,
    cifar100,
    digits,
    huggingface,
    image_folder,
    imagenet,
    mnist,
    segmentation_folder,
)
from ssm_vision.generative import (
    diffusion,
    diffusion_model,
    pixel_model,
    pixels,
    sample_command,
)
from ssm_vision.models import (
    baselines,
    mambavision,
    mambavision_config,
    mambavision_mixer,
    s4nd_vit,
    vim,
    vim_config,
    vmamba,
    vmamba_config,
    vmunet,
    vmunet_config,
)
from ssm_vision.presets import RECIPES


@hookimpl
def ssm_register_models() -> Iterable[ModelSpec]:
    return [
        ModelSpec(
            "patch-classifier",
            classifier.PatchClassifierConfig,
            classifier.PatchClassifier,
            "image classifier over a sequence of patches, any mixer",
            "arXiv:2010.11929, arXiv:2401.09417",
        ),
        ModelSpec(
            "vim",
            vim_config.VimConfig,
            vim.Vim,
            "Vision Mamba (Vim), image classifier for any image size",
            "arXiv:2401.09417",
        ),
        ModelSpec(
            "mambavision",
            mambavision_config.MambaVisionConfig,
            mambavision.MambaVision,
            "convolutions, then Mamba and attention in windows; any mixer",
            "arXiv:2407.08083",
        ),
        ModelSpec(
            "vmamba",
            vmamba_config.VMambaConfig,
            vmamba.VMamba,
            "hierarchical image classifier, scans along rows and columns both ways",
            "arXiv:2401.10166",
        ),
        ModelSpec(
            "vmunet",
            vmunet_config.VMUNetConfig,
            vmunet.VMUNet,
            "U-Net of VMamba blocks, for segmentation",
            "arXiv:2402.02491",
        ),
        ModelSpec(
            "s4nd-vit",
            s4nd_vit.S4NDViTConfig,
            s4nd_vit.S4NDViT,
            "vision transformer with S4 over rows and columns in place of attention",
            "arXiv:2210.06583",
        ),
        ModelSpec(
            "pixel-model",
            pixel_model.PixelModelConfig,
            pixel_model.PixelModel,
            "draws images pixel by pixel, any causal mixer",
            "arXiv:1601.06759",
        ),
        ModelSpec(
            "diffusion-model",
            diffusion_model.DiffusionModelConfig,
            diffusion_model.DiffusionModel,
            "draws images out of noise, patches with any mixer",
            "arXiv:2006.11239",
        ),
        ModelSpec(
            "baseline",
            baselines.BaselineConfig,
            baselines.build,
            "ResNet, ResNeXt, RegNet, ViT or DeiT of timm, to compare with",
            "arXiv:1512.03385, arXiv:2010.11929, arXiv:2012.12877",
        ),
    ]


@hookimpl
def ssm_register_mixers() -> Iterable[MixerSpec]:
    return [
        MixerSpec(
            "mambavision",
            mambavision_mixer.MambaVisionMixerConfig,
            mambavision_mixer.MambaVisionMixer,
            "MambaVision's mixer: a scan beside a convolution, not causal",
        )
    ]


@hookimpl
def ssm_register_datasets() -> Iterable[DatasetSpec]:
    return [
        DatasetSpec(
            "digits",
            digits.DigitsOptions,
            digits.build,
            "1797 handwritten digits 8x8 of scikit-learn, no download",
        ),
        DatasetSpec("mnist", mnist.MnistOptions, mnist.build, "70000 handwritten digits 28x28"),
        DatasetSpec(
            "fashion-mnist",
            mnist.FashionMnistOptions,
            mnist.build_fashion,
            "70000 pictures of clothes 28x28, 10 classes",
        ),
        DatasetSpec(
            "cifar10", cifar10.Cifar10Options, cifar10.build, "60000 photographs 32x32, 10 classes"
        ),
        DatasetSpec(
            "cifar100",
            cifar100.Cifar100Options,
            cifar100.build,
            "60000 photographs 32x32, 100 classes",
        ),
        DatasetSpec(
            "imagenet",
            imagenet.ImageNetOptions,
            imagenet.build,
            "ImageNet-1k: folders of classes or WebDataset shards",
        ),
        DatasetSpec(
            "huggingface",
            huggingface.HuggingFaceOptions,
            huggingface.build,
            "any image data set of the Hugging Face Hub (extra huggingface)",
        ),
        DatasetSpec(
            "image-folder",
            image_folder.ImageFolderOptions,
            image_folder.build,
            "your own images, one folder per class",
        ),
        DatasetSpec(
            "segmentation-folder",
            segmentation_folder.SegmentationFolderOptions,
            segmentation_folder.build,
            "your own pictures with masks, image/NAME.png and label/NAME.png",
        ),
    ]


@hookimpl
def ssm_register_tasks() -> Iterable[TaskSpec]:
    return [
        TaskSpec(
            "classification",
            classification.ClassificationOptions,
            classification.Classification,
            "one class per example: cross-entropy, accuracy",
        ),
        TaskSpec(
            "segmentation",
            segmentation.SegmentationOptions,
            segmentation.Segmentation,
            "one class per pixel: Dice loss and cross-entropy, Dice and IoU",
        ),
        TaskSpec(
            "pixels",
            NoOptions,
            pixels.Pixels,
            "every pixel from those before it: cross-entropy, bits per pixel",
        ),
        TaskSpec(
            "diffusion",
            NoOptions,
            diffusion.Diffusion,
            "the noise in images: mean squared error over random steps",
        ),
    ]


@hookimpl
def ssm_register_recipes() -> Iterable[RecipeSpec]:
    return recipes_in(RECIPES)


@hookimpl
def ssm_register_commands() -> Iterable[CommandSpec]:
    return [
        CommandSpec(
            "delta",
            "draw the step size Delta of a trained Mamba over images",
            delta_command.configure,
            delta_command.run,
        ),
        CommandSpec(
            "sample",
            "draw images with a trained pixel or diffusion model",
            sample_command.configure,
            sample_command.run,
        ),
    ]


@hookimpl
def ssm_register_benchmarks() -> Iterable[BenchmarkSpec]:
    return [benchmark.BENCHMARK]


@hookimpl
def ssm_register_exports() -> Iterable[ExportSpec]:
    return [exports.EXPORT]


@hookimpl
def ssm_report(runs: list[Path], folder: Path) -> Iterable[Picture | Remark]:
    return report.draw_runs(runs, folder)
