"""The arithmetic of one output pixel, written once as plain Python and compiled for CPU and GPU.

Normalising is `value * scale + bias` in float32. `scale` keeps 16 significant bits (`rounded_scale`), so the product
with an 8-bit value is exact and one rounding is left: it makes no difference whether a compiler fuses the two
operations, and CPU, GPU and NumPy agree bit for bit. The price is a relative error below 2**-16 in the scale.

Casting rounds to nearest even on the bit pattern, in integers, because neither target has both 16-bit types.
"""

import numpy as np

ONE, ROUND_BFLOAT16 = np.uint32(1), np.uint32(0x7FFF)
SIXTEEN, THIRTEEN, THIRTY_ONE = np.uint32(16), np.uint32(13), np.uint32(31)
SIGN, MAGNITUDE = np.uint32(0x8000), np.uint32(0x7FFFFFFF)
REBIAS_FLOAT16 = np.uint32(0x38000000)  # (127 - 15) << 23
ROUND_FLOAT16 = np.uint32(0x0FFF)
NORMAL_FLOAT16 = np.uint32(2**31 - 0x38800000)  # added to 2**-14, float16's smallest normal number, it gives 2**31


def rounded_scale(std_01: np.ndarray) -> np.ndarray:
    """1 / (255 * std) as float32 (3,) with 16 significant bits, from the standard deviation on the 0..1 scale."""
    mantissa, exponent = np.frexp(1.0 / (255.0 * np.asarray(std_01, np.float64)))
    return np.ldexp(np.rint(mantissa * 65536.0) / 65536.0, exponent).astype(np.float32)


def centred_bias(mean_01: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 (3,) that makes the mean pixel normalise to zero."""
    return (-255.0 * np.asarray(mean_01, np.float64) * scale.astype(np.float64)).astype(np.float32)


def bfloat16_bits(bits):
    """float32 bit pattern (uint32) to the nearest bfloat16's (uint32 below 2**16); finite values only."""
    return (bits + ROUND_BFLOAT16 + ((bits >> SIXTEEN) & ONE)) >> SIXTEEN


def float16_bits(bits):
    """float32 bit pattern (uint32) to the nearest float16's (uint32 below 2**16).

    For magnitudes below 65504. What is below float16's smallest normal number, 2**-14, is flushed to zero with its
    sign: a pixel value that small is noise, and a gradual underflow would need a float operation of each target.
    """
    sign = (bits >> SIXTEEN) & SIGN
    magnitude = bits & MAGNITUDE
    rebiased = magnitude - REBIAS_FLOAT16
    rounded = (rebiased + ROUND_FLOAT16 + ((rebiased >> THIRTEEN) & ONE)) >> THIRTEEN
    # 1 or 0, then sixteen bits of that: no branch in a vector, and nothing negative, as numba widens to 64 bits
    normal = (magnitude + NORMAL_FLOAT16) >> THIRTY_ONE
    return sign | (rounded & ((normal << SIXTEEN) - normal))
