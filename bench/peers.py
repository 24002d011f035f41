"""The loaders that `python -m bench loaders` compares: ours, FFCV's, torchvision's and the NumPy reference.

All pad by 4, crop, flip at random, cut out an 8x8 square of the mean colour, normalise and convert to float32. Their
random numbers differ; the work per image is the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastcifar.augment.transform import Transform
from fastcifar.config import NO_AUGMENTATION, AugmentConfig
from fastcifar.data.prepared import load_manifest, read_split
from fastcifar.loader import LoaderOptions, open_loader

PAD, HOLE = 4, 8
AUGMENT = AugmentConfig(pad=PAD, pad_mode="zero", flip="random", cutout=HOLE)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Options of a loader. Picklable, because each loader is built in its own process."""

    data: Path
    split: Literal["train", "test"] = "train"
    augment: bool = True
    batch_size: int
    device: str
    threads: int
    workers: int = 0  # of a DataLoader
    dtype: torch.dtype = torch.float32
    num_images: int | None = None  # per epoch; None for the whole split

    def count(self, available: int) -> int:
        """Images per epoch; in training whole batches only, because all loaders drop a smaller last one."""
        wanted = available if self.num_images is None else min(self.num_images, available)
        return max(self.batch_size, wanted // self.batch_size * self.batch_size) if self.augment else wanted


class Feed(Protocol):
    """The interface of all loaders."""

    num_images: int  # in an epoch

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images (b, 3, 32, 32) and labels int64 (b,), on the device of the setting."""
        ...


def build_feed(kind: str, setting: Setting) -> Feed:
    """Builds a loader; `kind` is a key of KINDS."""
    return KINDS[kind](setting)


class OursFeed:
    """Our loaders, opened as the trainer opens them."""

    def __init__(self, kind: Literal["stream", "resident"], setting: Setting) -> None:
        manifest = load_manifest(setting.data)
        config = AUGMENT if setting.augment else NO_AUGMENTATION
        transform = Transform(config, manifest.mean_01, manifest.std_01, dtype=setting.dtype)
        samples = manifest.splits[setting.split].samples
        size = min(setting.batch_size, samples)
        options = LoaderOptions(
            batch_size=size,
            seed=0,
            shuffle=setting.augment,
            drop_last=setting.augment,
            device=torch.device(setting.device),
        )
        self.loader = open_loader(kind, setting.data, setting.split, transform, options)
        self.num_images = setting.count(samples)
        self.batches = -(-self.num_images // size)
        self.device = setting.device

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Feed.epoch`. With `num_images`, the epoch is left early, which our loaders allow."""
        left = self.num_images
        for _, (images, labels) in zip(range(self.batches), self.loader.epoch(number), strict=False):
            images, labels = images[:left], labels[:left]
            left -= len(labels)
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


class NumpyFeed:
    """The plain reference of our kernel: one image, one operation after the other."""

    def __init__(self, setting: Setting) -> None:
        manifest = load_manifest(setting.data)
        self.images, self.labels = read_split(setting.data, setting.split)
        self.transform = Transform(AUGMENT, manifest.mean_01, manifest.std_01)
        self.num_images, self.setting = setting.count(len(self.labels)), setting

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Feed.epoch`."""
        from fastcifar.augment.reference import augment_one
        from fastcifar.loader.order import batches_of, epoch_order

        order = epoch_order(len(self.labels), 0, number)[: self.num_images]
        for batch in batches_of(order, self.setting.batch_size, drop_last=False):
            bits = [augment_one(self.images[i], self.transform, epoch=number, sample_id=int(i)) for i in batch]
            images = torch.from_numpy(np.stack(bits).view(np.float32)).permute(0, 3, 1, 2)
            yield images.to(self.setting.device), torch.from_numpy(self.labels[batch]).to(self.setting.device)


class TransformedSet(Dataset):
    """Images in memory that are transformed one by one, like a torchvision data set."""

    def __init__(self, images: Any, labels: np.ndarray, transform: Any, pillow: bool) -> None:
        self.images, self.labels, self.transform, self.pillow = images, labels, transform, pillow

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.pillow:
            from PIL import Image

            image = Image.fromarray(image)
        return self.transform(image), int(self.labels[index])


class TorchvisionFeed:
    """A DataLoader with torchvision's transforms; its `workers` stay alive between epochs."""

    def __init__(self, setting: Setting, *, pillow: bool) -> None:
        manifest = load_manifest(setting.data)
        images, labels = read_split(setting.data, setting.split)
        make = _pillow_transform if pillow else _tensor_transform
        transform = make(manifest.mean_01, manifest.std_01, setting.augment)
        source = images if pillow else torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.num_images, self.device = setting.count(len(labels)), setting.device
        self.loader = DataLoader(
            TransformedSet(source[: self.num_images], labels[: self.num_images], transform, pillow),
            batch_size=setting.batch_size,
            shuffle=setting.augment,
            drop_last=setting.augment,
            num_workers=setting.workers,
            persistent_workers=setting.workers > 0,
            multiprocessing_context="fork"
            if setting.workers
            else None,  # torch's default on Linux; this process was spawned
            pin_memory=setting.device != "cpu",
        )

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Feed.epoch`."""
        for images, labels in self.loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def _pillow_transform(mean: tuple[float, ...], std: tuple[float, ...], augment: bool) -> Any:
    from torchvision import transforms as t

    drawn = [t.RandomCrop(32, padding=PAD), t.RandomHorizontalFlip()] if augment else []
    return t.Compose([*drawn, t.ToTensor(), t.Normalize(mean, std), *([_hole(t)] if augment else [])])


def _tensor_transform(mean: tuple[float, ...], std: tuple[float, ...], augment: bool) -> Any:
    from torchvision.transforms import v2 as t

    drawn = [t.RandomCrop(32, padding=PAD), t.RandomHorizontalFlip()] if augment else []
    cast = [t.ToDtype(torch.float32, scale=True), t.Normalize(list(mean), list(std))]
    return t.Compose([*drawn, *cast, *([_hole(t)] if augment else [])])


def _hole(transforms: Any) -> Any:
    """Cutout as RandomErasing with probability 1: a HOLE x HOLE square of 0, which is the mean after normalising."""
    fraction = HOLE**2 / 32**2
    return transforms.RandomErasing(p=1, scale=(fraction, fraction), ratio=(1, 1), value=0)


class FfcvFeed:
    """FFCV's operations; with `lookup` its table-based NormalizeImage, otherwise torchvision's Normalize."""

    def __init__(self, setting: Setting, *, lookup: bool) -> None:
        from ffcv.loader import Loader, OrderOption

        manifest = load_manifest(setting.data)
        info = manifest.splits[setting.split]
        self.num_images = setting.count(info.samples)
        pipelines = _ffcv_pipelines(manifest.mean_01, manifest.std_01, setting, lookup)
        self.loader = Loader(
            str(setting.data / info.file),
            batch_size=min(setting.batch_size, self.num_images),
            num_workers=setting.threads,
            os_cache=True,
            order=OrderOption.RANDOM if setting.augment else OrderOption.SEQUENTIAL,
            seed=0,
            indices=range(self.num_images),
            drop_last=setting.augment,
            pipelines=pipelines,
        )

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Feed.epoch`. A batch is valid until the next one is requested."""
        yield from self.loader


def _ffcv_pipelines(
    mean_01: tuple[float, ...], std_01: tuple[float, ...], setting: Setting, lookup: bool
) -> dict[str, Any]:
    from ffcv import transforms as f
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from torchvision.transforms import Normalize

    mean, std = 255 * np.array(mean_01), 255 * np.array(std_01)
    # random operations must come before ToTensor: with a compiled operation after it, FFCV's constructor never returns
    drawn: list[Any] = []
    if setting.augment:
        fill = tuple(round(value) for value in mean)
        drawn = [f.RandomHorizontalFlip(), f.RandomTranslate(PAD, fill), f.Cutout(HOLE, fill)]
    to_device = [] if setting.device == "cpu" else [f.ToDevice(torch.device(setting.device))]
    if lookup:
        end = [f.NormalizeImage(mean, std, np.dtype(np.float32)), f.ToTensor(), *to_device, f.ToTorchImage()]
    else:
        end = [f.ToTensor(), *to_device, f.ToTorchImage(), f.Convert(torch.float32), Normalize(mean, std)]
    label = [IntDecoder(), f.ToTensor(), *to_device, f.Squeeze(1)]
    return {"image": [SimpleRGBImageDecoder(), *drawn, *end], "label": label}


KINDS: dict[str, Any] = {
    "resident": lambda setting: OursFeed("resident", setting),
    "stream": lambda setting: OursFeed("stream", setting),
    "ffcv": lambda setting: FfcvFeed(setting, lookup=False),
    "ffcv-lookup": lambda setting: FfcvFeed(setting, lookup=True),
    "torchvision-pil": lambda setting: TorchvisionFeed(setting, pillow=True),
    "torchvision-v2": lambda setting: TorchvisionFeed(setting, pillow=False),
    "numpy": NumpyFeed,
}
