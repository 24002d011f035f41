"""What a configuration means on this machine: its loaders, its network and its number of steps."""

import copy
import sys
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from fastcifar.augment.transform import Transform
from fastcifar.augment.transform_device import DeviceTransform, default_transform
from fastcifar.config import NO_AUGMENTATION, Config
from fastcifar.config.registry import imported_modules
from fastcifar.data.prepared import load_manifest
from fastcifar.errors import UserError
from fastcifar.loader import LoaderKind, LoaderOptions, open_loader
from fastcifar.loader.base import Loader
from fastcifar.loader.choice import choose_loader
from fastcifar.models.build import build_model, use_kernels
from fastcifar.models.hooks import InitFromData
from fastcifar.runs.record import environment
from fastcifar.runtime.device import Runtime
from fastcifar.training.steps import resolution, total_steps


class RunContext:
    """The fixed parts of a run of `config`; raises UserError for missing data and for a batch larger than the set."""

    device_transform: type[DeviceTransform] | None
    """What makes the batches on the device; None on a CPU. The self-check may replace it before loaders are opened."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        self.device_transform = default_transform(runtime.device)
        self.manifest = load_manifest(config.data)
        self.samples = self.manifest.splits["train"].samples
        if config.batch_size > self.samples:
            raise UserError(f"batch_size is {config.batch_size}, but the training set has {self.samples} images")
        self.classes = len(self.manifest.class_names)
        self.steps_per_epoch = self.samples // config.batch_size
        self.total = total_steps(config.epochs, self.steps_per_epoch)
        self.loader_kind: LoaderKind
        self.loader_kind, reason = choose_loader(config.loader, config.data, runtime.device)
        if reason and self.loader_kind == "stream":
            print(f"loader stream: {reason}", file=sys.stderr, flush=True)

    def with_seed(self, seed: int) -> "RunContext":
        """The same run with another seed."""
        other = copy.copy(self)
        other.config = replace(self.config, seed=seed)
        return other

    def transform(self, split: Literal["train", "test"]) -> Transform:
        """The augmentation of training images, none for test images; in the run's dtype.

        That is float32, or the 16-bit type that autocast would cast images to.
        """
        augment = self.config.augment if split == "train" else NO_AUGMENTATION
        mean, std = self.manifest.mean_01, self.manifest.std_01
        return Transform(augment, mean, std, seed=self.config.seed, dtype=self.runtime.dtype)

    def open(self, split: Literal["train", "test"], storage: tuple[Tensor, Tensor] | None = None) -> Loader:
        """A loader of one split: training images shuffled and augmented, test images in order and unchanged.

        `storage`: see `LoaderOptions`.
        """
        config, is_train = self.config, split == "train"
        options = LoaderOptions(
            batch_size=config.batch_size if is_train else config.evaluation_batch_size,
            seed=config.seed,
            shuffle=is_train,
            drop_last=is_train,
            size_at=self.image_size if is_train else None,
            op=config.augment_op if is_train else None,
            device=self.runtime.device,
            transform=self.device_transform,
            storage=storage,
        )
        return open_loader(self.loader_kind, config.data, split, self.transform(split), options)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the training images in the run, in pixels, ascending."""
        return tuple(sorted({self.image_size(step) for step in range(self.total)}))

    def image_size(self, step: int) -> int:
        """Side of the training images of `step`, in pixels."""
        return resolution(step, self.total, self.config.resolution)

    def environment(self) -> dict[str, Any]:
        """Versions, hardware, code revision, and the modules that components were imported from, for the record."""
        return {**environment(self.runtime), "imports": imported_modules(self.config)}

    def new_model(self) -> nn.Module:
        """The network with the initial weights of the seed, on the device, without those that depend on images."""
        model = build_model(self.config.model, self.classes, self.config.seed)
        use_kernels(model, self.runtime.cpu_kernels)
        return model.to(self.runtime.device)

    def init_from_data(self, model: nn.Module, loader: Loader) -> None:
        """Lets the network take statistics from the training images of `loader`, if it wants to."""
        if isinstance(model, InitFromData):
            plain = Transform(NO_AUGMENTATION, self.manifest.mean_01, self.manifest.std_01)
            model.init_from_data(lambda count: loader.plain_images(count, plain))

    def initial_model(self, loader: Loader) -> nn.Module:
        """The network as it is before the first step."""
        model = self.new_model()
        self.init_from_data(model, loader)
        return model
