"""Optimisers, one file each; setting their learning rates, and their state as tensors."""
