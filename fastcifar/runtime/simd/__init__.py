"""SIMD for numba kernels: inner loops written as explicit LLVM vector instructions.

LLVM's auto-vectoriser gives up at a flip, at an unaligned start or at two arrays that might overlap, and it uses only
half the vector width on CPUs whose clock once dropped for 512-bit instructions. Kernels therefore write their inner
loops with `Vector`. LLVM splits a vector that is longer than a register into several.

Generated functions work on addresses and on strides in bytes. Nothing checks them.
"""
