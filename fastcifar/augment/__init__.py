"""Augmentation: random draws that depend only on (seed, epoch, sample), and one fused kernel that applies them."""
