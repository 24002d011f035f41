"""The constant matrices of Winograd's minimal filtering, from interpolation points (Cook and Toom).

F(m, 3) computes m outputs of a 3-tap correlation from m + 2 inputs d and a filter g, with m + 2 products, as
A^T [(G g) * (B^T d)] (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv
1509.09308).

Full tiles are F(4x4, 3x3). Tiles at the bottom and right edge of a feature map may have 3 or 2 outputs per side. They
use a subset of the same interpolation points, so G g G^T is shared.
"""

from collections.abc import Sequence

import numpy as np

from fastcifar.runtime.simd.vector import Vector

OUTPUT_TILE = 4
"""m: outputs per side of a full tile."""
ALPHA = OUTPUT_TILE + 2
"""Inputs, and products, per side of a full tile."""
FINITE_POINTS = (0.0, 0.5, -0.5, 1.5, -1.5)
"""The interpolation points other than infinity. Powers of points far from 1 grow, differences of points close together
shrink: of the sets tried, this one rounds least, with half the error of the usual 0, 1, -1, 2, -2."""
POINTS_OF_TILE = {4: (0, 1, 2, 3, 4, 5), 3: (1, 2, 3, 4, 5), 2: (0, 3, 4, 5)}
"""Which points a tile with m outputs per side uses; 5 is infinity. Of the possible subsets these round least, with half
the error of a full tile."""


def minimal_filtering(outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T (m + 2, m + 2), A^T (m, m + 2) and G (m + 2, 3) of F(m, 3) for m = `outputs`.

    The rows of G are those of the full tile; the scales that differ for a smaller tile are in its B^T.
    """
    points = np.array([FINITE_POINTS[i] for i in POINTS_OF_TILE[outputs][:-1]])
    unused = np.array([point for point in FINITE_POINTS if point not in points])
    others = [points[points != point] for point in points]
    input_matrix = np.stack([*(np.pad(np.poly(other)[::-1], (0, 1)) for other in others), np.poly(points)[::-1]])
    input_matrix[:-1] *= np.prod(points[:, None] - unused, axis=1, keepdims=True)
    output_matrix = np.concatenate([np.vander(points, outputs, increasing=True), [[0] * (outputs - 1) + [1]]]).T
    scales = np.array([np.prod([point - other for other in FINITE_POINTS if other != point]) for point in points])
    filter_matrix = np.concatenate([np.vander(points, 3, increasing=True) / scales[:, None], [[0, 0, 1]]])
    return input_matrix, output_matrix, filter_matrix


MATRICES = {outputs: minimal_filtering(outputs) for outputs in POINTS_OF_TILE}
"""B^T, A^T and G by the tile's outputs per side."""


def multiply(matrix: np.ndarray, inputs: Sequence[Vector]) -> list[Vector]:
    """matrix (m, n) @ inputs (n,), with common subexpressions shared.

    Two columns that differ only in signs, as those of points +p and -p may, take the sum and the difference of their
    inputs. Two rows that differ only in signs are the sum and the difference of two partial sums.
    """
    matrix, inputs = matrix.copy(), list(inputs)
    for j in range(matrix.shape[1]):
        for k in range(j + 1, matrix.shape[1]):
            same, opposite = matrix[:, j] == matrix[:, k], matrix[:, j] == -matrix[:, k]
            if (same | opposite).all() and (same & ~opposite).any() and (opposite & ~same).any():
                inputs[j], inputs[k] = inputs[j] + inputs[k], inputs[j] - inputs[k]
                matrix[:, j], matrix[:, k] = np.where(same, matrix[:, j], 0), np.where(opposite, matrix[:, j], 0)
    outputs: dict[int, Vector] = {}
    for i, row in enumerate(matrix):
        if i in outputs:
            continue
        for j in range(i + 1, len(matrix)):
            even, odd = (row + matrix[j]) / 2, (row - matrix[j]) / 2
            if j not in outputs and even.any() and odd.any() and (abs(row) == abs(matrix[j])).all():
                left, right = _weighted_sum(even, inputs), _weighted_sum(odd, inputs)
                outputs[i], outputs[j] = left + right, left - right
                break
        else:
            outputs[i] = _weighted_sum(row, inputs)
    return [outputs[i] for i in range(len(matrix))]


def _weighted_sum(weights: np.ndarray, inputs: Sequence[Vector]) -> Vector:
    terms = [(float(weight), vector) for weight, vector in zip(weights, inputs, strict=True) if weight]
    terms.sort(key=lambda term: term[0] != 1)  # start with a term that needs no multiplication, if there is one
    (weight, vector), *rest = terms
    total = vector if weight == 1 else weight * vector
    for weight, vector in rest:
        total = total + vector if weight == 1 else total - vector if weight == -1 else total + weight * vector
    return total
