"""Which Winograd tiles cover a feature map, and the order of tiles in memory."""

from typing import NamedTuple

import numba

from fastcifar.nn.winograd.matrices import ALPHA, OUTPUT_TILE


class TileGrid(NamedTuple):
    """Rows and columns of tiles: full ones with 4 outputs per side first, then those with `edge` (2 or 3) outputs."""

    full_rows: int
    edge_rows: int
    full_columns: int
    edge_columns: int
    edge: int


class Tile(NamedTuple):
    """The outputs of a tile, and its place in the order of `tile_index`."""

    top: int
    rows: int
    left: int
    columns: int
    place: int


@numba.njit
def tile_grid(height, width, edge):
    """The tiles that cover a feature map.

    With edge 3 the last ones may reach beyond it; with edge 2 none does if height and width are even.
    """
    rows, columns = (height + OUTPUT_TILE - 1) // OUTPUT_TILE, (width + OUTPUT_TILE - 1) // OUTPUT_TILE
    edge_rows = min(rows, (OUTPUT_TILE * rows - height) // (OUTPUT_TILE - edge))
    edge_columns = min(columns, (OUTPUT_TILE * columns - width) // (OUTPUT_TILE - edge))
    return TileGrid(rows - edge_rows, edge_rows, columns - edge_columns, edge_columns, edge)


@numba.njit
def tile_count(grid):
    """Tiles of one image."""
    return (grid.full_rows + grid.edge_rows) * (grid.full_columns + grid.edge_columns)


@numba.njit
def covered(grid):
    """Rows and columns of outputs that the tiles cover."""
    return (
        OUTPUT_TILE * grid.full_rows + grid.edge * grid.edge_rows,
        OUTPUT_TILE * grid.full_columns + grid.edge * grid.edge_columns,
    )


@numba.njit
def tile_index(row, column, grid, image, images):
    """The index of an image's tile among the tiles of `images` images.

    The order is: tiles with smaller width, full tiles, tiles with smaller height, tiles with both. Tiles that take part
    in the same GEMM are then adjacent; see `gemm_tiles`.
    """
    full_rows, edge_rows, full_columns, edge_columns, _ = grid
    if row < full_rows and column >= full_columns:
        return image * full_rows * edge_columns + row * edge_columns + column - full_columns
    before = images * full_rows * edge_columns
    if row < full_rows:
        return before + image * full_rows * full_columns + row * full_columns + column
    before += images * full_rows * full_columns
    if column < full_columns:
        return before + image * edge_rows * full_columns + (row - full_rows) * full_columns + column
    before += images * edge_rows * full_columns
    return before + image * edge_rows * edge_columns + (row - full_rows) * edge_columns + column - full_columns


@numba.njit
def _outputs(tile, full, edge):
    """First output and number of outputs of a tile along one axis."""
    return (OUTPUT_TILE * tile, OUTPUT_TILE) if tile < full else (OUTPUT_TILE * full + edge * (tile - full), edge)


@numba.njit
def locate_tile(number, grid, image, images):
    """Tile `number` of an image, counted row by row."""
    columns = grid.full_columns + grid.edge_columns
    row, column = number // columns, number % columns
    top, tile_rows = _outputs(row, grid.full_rows, grid.edge)
    left, tile_columns = _outputs(column, grid.full_columns, grid.edge)
    return Tile(top, tile_rows, left, tile_columns, tile_index(row, column, grid, image, images))


@numba.njit
def _edge_lacks(edge, point):
    """Whether a tile with 3 or 2 outputs does not use this interpolation point; see `POINTS_OF_TILE`."""
    return point == 0 if edge == 3 else 1 <= point <= 2


@numba.njit
def gemm_tiles(element, grid, images):
    """First index and number of the tiles that have this of the 36 elements of a transformed tile."""
    full_rows, edge_rows, full_columns, edge_columns, edge = grid
    only_full_rows, only_full_columns = _edge_lacks(edge, element // ALPHA), _edge_lacks(edge, element % ALPHA)
    first = images * full_rows * edge_columns if only_full_columns else 0
    last = images * full_rows * (full_columns + edge_columns)
    if not only_full_rows:
        last += images * edge_rows * (full_columns if only_full_columns else full_columns + edge_columns)
    return first, last - first
