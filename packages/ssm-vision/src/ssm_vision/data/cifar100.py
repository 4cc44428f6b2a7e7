"""CIFAR-100: the hundred classes; see `cifar10` for the files."""

from __future__ import annotations

from dataclasses import dataclass

from ssm_core import DataBundle, DataInfo
from ssm_vision.data.cifar10 import Cifar10Options, Source, build_cifar
from ssm_vision.data.in_memory import Normalisation

LABELS = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
    crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
)
INFO = DataInfo(input_shape=(3, 32, 32), n_outputs=100, labels=LABELS)
NORMALISATION = Normalisation(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
CIFAR100 = Source("cifar100", "CIFAR100", "fine_label", INFO, NORMALISATION)


@dataclass(frozen=True)
class Cifar100Options(Cifar10Options):
    """CIFAR-100.

    Args:
        root: folder that holds cifar100/{train,test}.parquet or torchvision's cifar-100-python.
    """


def build(options: Cifar100Options) -> DataBundle:
    """Load CIFAR-100; the parquet files win over the archive.

    Raises:
        DataError: files are missing and cannot be had, or a file is damaged.
    """
    return build_cifar(CIFAR100, options)
