"""Augmentation: draws that are a pure function of (seed, epoch, sample), and one fused kernel that applies them."""
