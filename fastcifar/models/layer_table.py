"""The layer table of a network: output shapes, parameters and FLOPs; needs no data and no weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torchinfo
from torch import nn

from fastcifar.config import ModelConfig
from fastcifar.models.build import outline

HEADER = ("layer", "kind", "output", "parameters", "MFLOP")


@dataclass(frozen=True, slots=True)
class Layer:
    """A module of the network; counts of a container are the sums over its children."""

    name: str
    """As in the state dict, such as `layer1.0.conv`; "" is the network itself."""
    kind: str
    """Class name of the module."""
    depth: int
    """0 for the network itself, 1 for its children, ..."""
    shape: tuple[int, ...]
    """Output for one image: (channels, height, width), or (features,)."""
    parameters: int
    flops: int
    """Forward pass of one image: two per multiply-add in convolutions and linear layers; the rest is not counted."""


def layers(config: ModelConfig, classes: int = 10, size: int = 32) -> list[Layer]:
    """All modules for an image of `size` pixels, the network itself first, in the order of the forward pass."""
    model = outline(config, classes).eval()
    names = {id(module): name for name, module in model.named_modules()}
    found = torchinfo.summary(model, (1, 3, size, size), device="meta", verbose=0, depth=99).summary_list
    own = {names[info.layer_id]: forward_flops(info.module, info.output_size) for info in found if info.is_leaf_layer}
    return [
        Layer(
            name=names[info.layer_id],
            kind=info.class_name,
            depth=info.depth,
            shape=tuple(info.output_size[1:]),
            parameters=sum(p.numel() for p in info.module.parameters()),
            flops=sum(flops for name, flops in own.items() if _within(name, names[info.layer_id])),
        )
        for info in found
    ]


def forward_flops(module: nn.Module, output: Sequence[int]) -> int:
    """FLOPs per image of a convolution with output (n, c, h, w) or a linear layer with (n, ..., c); else 0."""
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return 0
    positions = output[2:] if isinstance(module, nn.Conv2d) else output[1:-1]
    return 2 * module.weight.numel() * math.prod(positions)  # each weight is used at every position of the output


def _within(name: str, of: str) -> bool:
    return not of or name == of or name.startswith(f"{of}.")


def rows(table: list[Layer]) -> list[tuple[str, str, str, str, str]]:
    """Cells of the table below `HEADER`: children indented, modules without weights omitted, the network last."""
    total, *inner = table
    names = {layer.name: "  " * (layer.depth - 1) + layer.name.rpartition(".")[2] for layer in inner}
    return [(names[layer.name], *_cells(layer)) for layer in inner if layer.parameters] + [("all", *_cells(total))]


def _cells(layer: Layer) -> tuple[str, str, str, str]:
    shape = " x ".join(map(str, layer.shape))
    return layer.kind, shape, f"{layer.parameters:,}", f"{layer.flops / 1e6:,.1f}" if layer.flops else "-"


def layer_table(config: ModelConfig, classes: int = 10, size: int = 32) -> str:
    """The table as aligned plain text below a line that says what is counted."""
    cells = [HEADER, *rows(layers(config, classes, size))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADER))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), *map(str.rjust, row[2:], widths[2:])])
        for row in cells
    ]
    rule = "-" * len(lines[0])
    what = f"one image of {size}x{size}, {classes} classes; forward, two FLOP per multiply-add"
    return "\n".join([what, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]])
