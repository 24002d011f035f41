"""Which tiles cover a map, and where each lies among those of some images; compiled into `winograd.py`'s kernels."""

import numba

from fastcifar.nn.winograd.transforms import POINTS, TILE


@numba.njit
def tiling(height, width, edge):
    """Tiles of four results and of `edge` that cover so many rows, and columns: (full, smaller, full, smaller).

    With edge 3 the last may reach beyond; with edge 2 none does where height and width are even.
    """
    down, across = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    below = min(down, (TILE * down - height) // (TILE - edge))
    beside = min(across, (TILE * across - width) // (TILE - edge))
    return down - below, below, across - beside, beside


@numba.njit
def extent(full, smaller, edge):
    """The results that tiles cover in a row."""
    return TILE * full + edge * smaller


@numba.njit
def first_of(tile, full, edge):
    """Where a row's tile begins, and its results."""
    return (TILE * tile, TILE) if tile < full else (TILE * full + edge * (tile - full), edge)


@numba.njit
def place_of(row, column, tiles, image, images):
    """The place of an image's tile among those of so many images.

    Tiles that are smaller across come first, then whole ones, those smaller down, those smaller in both directions: so
    those that have a product, or all of them, lie together; see `span_of`.
    """
    down, below, across, beside = tiles
    if row < down and column >= across:
        return image * down * beside + row * beside + column - across
    before = images * down * beside
    if row < down:
        return before + image * down * across + row * across + column
    before += images * down * across
    if column < across:
        return before + image * below * across + (row - down) * across + column
    return before + images * below * across + image * below * beside + (row - down) * beside + column - across


@numba.njit
def tile_of(number, tiles, edge, image, images):
    """Of an image's tile, counted row by row: its top, rows, left, columns, and its place among those of `images`."""
    row, column = number // (tiles[2] + tiles[3]), number % (tiles[2] + tiles[3])
    (top, tall), (left, broad) = first_of(row, tiles[0], edge), first_of(column, tiles[2], edge)
    return top, tall, left, broad, place_of(row, column, tiles, image, images)


@numba.njit
def _lacks(results, point):
    """Whether a tile of 3 or 2 results is without this of the points, as `POINTS_OF` has it."""
    return point == 0 if results == 3 else 1 <= point <= 2


@numba.njit
def span_of(product, tiles, edge, images):
    """The first place that has this of the 36 products, and how many have it."""
    down, below, across, beside = tiles
    only_tall, only_broad = _lacks(edge, product // POINTS), _lacks(edge, product % POINTS)
    first = images * down * beside if only_broad else 0
    last = images * down * (across + beside)
    if not only_tall:
        last += images * below * (across if only_broad else across + beside)
    return first, last - first
