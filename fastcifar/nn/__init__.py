"""Layers: convolution, pooling, batch norm and activation fused, by PyTorch's kernels or by our CPU kernels."""
