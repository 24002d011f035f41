"""3x3 convolutions on a CPU by Winograd's minimal filtering, in float32 or float16, compiled by numba."""
