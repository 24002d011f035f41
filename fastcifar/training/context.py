"""What a configuration means on this machine: its loaders, its network and its number of steps."""

import sys
from typing import Any, Literal

from torch import nn

from fastcifar.augment.transform import Transform
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

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        self.manifest = load_manifest(config.data)
        samples = self.manifest.splits["train"].samples
        if config.batch_size > samples:
            raise UserError(f"batch_size is {config.batch_size}, but the training set has {samples} images")
        self.classes = len(self.manifest.class_names)
        self.steps_per_epoch = samples // config.batch_size
        self.total = total_steps(config.epochs, self.steps_per_epoch)
        self.loader_kind: LoaderKind
        self.loader_kind, reason = choose_loader(config.loader, config.data, runtime.device)
        if reason and self.loader_kind == "stream":
            print(f"loader stream: {reason}", file=sys.stderr, flush=True)

    def open(self, split: Literal["train", "test"]) -> Loader:
        """A loader of one split: training images shuffled and augmented, test images in order and unchanged."""
        config, is_train = self.config, split == "train"
        # images in the network's own type: float32, or the 16-bit type that autocast would cast them to
        transform = Transform(
            config.augment if is_train else NO_AUGMENTATION,
            self.manifest.mean_01,
            self.manifest.std_01,
            seed=config.seed,
            dtype=self.runtime.dtype,
        )
        options = LoaderOptions(
            batch_size=config.batch_size if is_train else config.evaluation_batch_size,
            seed=config.seed,
            shuffle=is_train,
            drop_last=is_train,
            size_at=self.image_size if is_train else None,
            op=config.augment_op if is_train else None,
            device=self.runtime.device,
        )
        return open_loader(self.loader_kind, config.data, split, transform, options)

    def image_size(self, step: int) -> int:
        """Side of the training images of `step`, in pixels."""
        return resolution(step, self.total, self.config.resolution)

    def environment(self) -> dict[str, Any]:
        """Versions, hardware, code revision, and the modules that components were imported from, for the record."""
        return {**environment(self.runtime), "imports": imported_modules(self.config)}

    def new_model(self, loader: Loader) -> nn.Module:
        """The initial network, on the device; it may take statistics from the training images of `loader`."""
        model = build_model(self.config.model, self.classes, self.config.seed)
        if isinstance(model, InitFromData):
            plain = Transform(NO_AUGMENTATION, self.manifest.mean_01, self.manifest.std_01)
            model.init_from_data(lambda count: loader.plain_images(count, plain).cpu())
        use_kernels(model, self.runtime.cpu_kernels)
        return model.to(self.runtime.device)
