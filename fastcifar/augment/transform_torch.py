"""`DeviceTransform` by tensor operations: for any device that torch has, and the CUDA kernel's stand-in.

The steps of `reference.py`, for a batch at once. Everything is exact on every device: int64 where bits wrap around or
images are addressed, smaller integers and float32 elsewhere. No operation waits for the device or copies from the host,
so that the work can be captured in a CUDA graph: sizes are Python numbers, draws are tensors.
"""

import torch
from torch import Tensor

from fastcifar.augment.transform import Transform, crop_size
from fastcifar.augment.transform_device import EPOCH, POSITION, SEED, DeviceTransform
from fastcifar.data.cifar10 import CHANNELS, IMAGE_SIZE
from fastcifar.rng import Purpose, hash64_tensor, stream_key_tensor

SMALLEST_FLOAT16 = 2**-14
"""Float16's smallest normal number; smaller magnitudes become zero, see `pixel.float16_bits`."""
LAST = IMAGE_SIZE - 1


class TorchTransform(DeviceTransform):
    """A `Transform` by tensor operations. Its intermediate results take several times the memory of its output."""

    title = "tensor operations"

    def __init__(self, transform: Transform, device: torch.device) -> None:
        """See `DeviceTransform`."""
        super().__init__(transform, device)
        self._purposes = torch.tensor([Purpose.AUGMENT, Purpose.AUGMENT, Purpose.FLIP], device=device)

    def _queue(self, out: Tensor, images: Tensor, indices: Tensor, sample_ids: Tensor, state: Tensor) -> None:
        count, size = out.shape[:2]
        side = crop_size(self.config, size)
        window = state[POSITION] + torch.arange(count, device=out.device)
        rows, samples = indices.index_select(0, window), sample_ids.index_select(0, window)
        crop, hole, flipped = self._draws(samples, state)
        pixels = self._cropped(images, rows, crop, flipped, side)
        if size != side:  # means of 32 * 32 parts, rounded half up
            pixels = (area_sums(area_sums(pixels, size, 1), size, 2) + 512) >> 10
        values = pixels.to(torch.float32) * self._scale_and_bias[:CHANNELS] + self._scale_and_bias[CHANNELS:]
        if self.dtype == torch.float16:
            values *= values.abs() >= SMALLEST_FLOAT16  # keeps the sign of zero
        if self.config.cutout:
            values.masked_fill_(self._in_hole(hole, size), 0)
        out.copy_(values)

    def _draws(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hashes int64 (b,) that draw the crop and the hole, and whether each image is flipped, int64 (b,) of 0 or 1.

        One call each for the three streams, as the time of so few numbers is that of starting an operation.
        """
        epoch, flip = state[EPOCH], self.config.flip
        coins = epoch + 1 if flip == "random" else torch.zeros_like(epoch)
        keys = stream_key_tensor(state[SEED], self._purposes, torch.stack([epoch, epoch, coins]))
        counters = torch.stack([2 * samples, 2 * samples + 1, samples])
        crop, hole, coin = hash64_tensor(keys[:, None], counters)
        flipped = coin + epoch if flip == "alternating" else coin
        return crop, hole, flipped & 1

    def _cropped(self, images: Tensor, rows: Tensor, crop: Tensor, flipped: Tensor, side: int) -> Tensor:
        """`images[rows]` padded, cropped and flipped, uint8 (b, side, side, 3)."""
        config = self.config
        top, left = (draw - config.pad for draw in draws_below(crop, 2 * config.pad + 1 + IMAGE_SIZE - side))
        along = torch.arange(side, device=images.device)
        y, x = top[:, None] + along, left[:, None] + along
        if config.flip != "none":
            x = left[:, None] + (flipped[:, None] * (side - 1) - along).abs()
        y_inside, x_inside = reflected(y), reflected(x)
        pixels = images[rows[:, None, None], y_inside[:, :, None], x_inside[:, None, :]]
        if config.pad and config.pad_mode == "zero":
            pixels *= ((y == y_inside)[:, :, None] & (x == x_inside)[:, None, :])[..., None]
        return pixels

    def _in_hole(self, hole: Tensor, size: int) -> Tensor:
        """Whether a pixel's centre is in the hole, bool (b, size, size, 1); computed in units of 1 / (2 size)."""
        cutout = self.config.cutout
        centres = (2 * torch.arange(size, device=hole.device) + 1) * IMAGE_SIZE
        starts = (2 * size * (draw[:, None] - cutout // 2) for draw in draws_below(hole, IMAGE_SIZE))
        in_rows, in_columns = ((centres >= start) & (centres < start + 2 * size * cutout) for start in starts)
        return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]


def draws_below(hashed: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Draws in [0, limit) from the low and from the high 32 bits of `hashed`; int64, as is `hashed`."""
    low, high = ((half & 0xFFFFFFFF) * limit >> 32 for half in (hashed, hashed >> 32))
    return low, high


def reflected(i: Tensor) -> Tensor:
    """Indices in [0, 32) for integers in [-31, 62]: those outside are reflected at the first and the last pixel."""
    return LAST - (LAST - i.abs()).abs()


def area_sums(pixels: Tensor, size: int, axis: int) -> Tensor:
    """int32 sums of `pixels` over the part of `axis`, of 32 inputs, that each of `size` outputs covers.

    In units of 1 / (32 * size) of the axis an input spans `size` and an output 32, so the weights are integers.
    """
    start = IMAGE_SIZE * torch.arange(size, device=pixels.device)[:, None]
    covered = start // size + torch.arange(IMAGE_SIZE // size + 2, device=pixels.device)  # and up to two more
    weights = torch.minimum(start + IMAGE_SIZE, size * (covered + 1)) - torch.maximum(start, size * covered)
    weights = weights.clamp(min=0).to(torch.int32).view(*covered.shape, *[1] * (pixels.ndim - axis - 1))
    taken = pixels.index_select(axis, covered.clamp(max=LAST).view(-1)).unflatten(axis, covered.shape)
    return (taken * weights).sum(axis + 1, dtype=torch.int32)
