"""Where and how a run computes: device, threads, kernel cache, SIMD vectors, progress display."""
