"""3x3 convolutions on a CPU with AMX: direct ones, of bfloat16 with float32 sums, compiled by numba."""
