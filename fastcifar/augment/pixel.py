"""The arithmetic of one output pixel, written once as plain Python and compiled for CPU and GPU.

Normalisation is `value * scale + bias` in float32. `scale` keeps 16 significant bits (`rounded_scale`), so its product
with an 8-bit value is exact and only the sum is rounded. A fused multiply-add therefore gives the same result as two
operations, and CPU, GPU and NumPy agree bit for bit. The price is a relative error below 2**-16 in the scale.

Casts round to nearest even on the bit pattern, in integer arithmetic, because not every CPU and GPU has instructions
for both 16-bit types.
"""

import numpy as np

FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2  # codes of the output dtypes, for kernels
ONE, ROUND_BFLOAT16 = np.uint32(1), np.uint32(0x7FFF)
SIXTEEN, THIRTEEN, THIRTY_ONE = np.uint32(16), np.uint32(13), np.uint32(31)
SIGN, MAGNITUDE = np.uint32(0x8000), np.uint32(0x7FFFFFFF)
REBIAS_FLOAT16 = np.uint32(0x38000000)  # (127 - 15) << 23
ROUND_FLOAT16 = np.uint32(0x0FFF)
NORMAL_FLOAT16 = np.uint32(2**31 - 0x38800000)  # plus the bits of 2**-14, float16's smallest normal number: 2**31


def rounded_scale(std_01: np.ndarray) -> np.ndarray:
    """1 / (255 * std) as float32 (3,) with 16 significant bits, from the standard deviation on the 0..1 scale."""
    mantissa, exponent = np.frexp(1.0 / (255.0 * np.asarray(std_01, np.float64)))
    return np.ldexp(np.rint(mantissa * 65536.0) / 65536.0, exponent).astype(np.float32)


def centred_bias(mean_01: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 (3,) with which the mean pixel is normalised to zero; `mean_01` is on the 0..1 scale."""
    return (-255.0 * np.asarray(mean_01, np.float64) * scale.astype(np.float64)).astype(np.float32)


def bfloat16_bits(bits):
    """float32 bit pattern (uint32) to the nearest bfloat16's (uint32 below 2**16); finite values only."""
    return (bits + ROUND_BFLOAT16 + ((bits >> SIXTEEN) & ONE)) >> SIXTEEN


def float16_bits(bits):
    """float32 bit pattern (uint32) to the nearest float16's (uint32 below 2**16), for magnitudes below 65504.

    Magnitudes below float16's smallest normal number, 2**-14, become zero and keep their sign. A pixel value that small
    is noise, and gradual underflow would need a different float operation on each target.
    """
    sign = (bits >> SIXTEEN) & SIGN
    magnitude = bits & MAGNITUDE
    rebiased = magnitude - REBIAS_FLOAT16
    rounded = (rebiased + ROUND_FLOAT16 + ((rebiased >> THIRTEEN) & ONE)) >> THIRTEEN
    # 1 or 0, widened to a mask of sixteen ones or zeros: no branch, which a vector could not take, and no negative
    # number, which numba would widen to 64 bits
    normal = (magnitude + NORMAL_FLOAT16) >> THIRTY_ONE
    return sign | (rounded & ((normal << SIXTEEN) - normal))
