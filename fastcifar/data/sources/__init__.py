"""Readers of raw CIFAR-10: archives, unpacked folders, trees of image files and the synthetic set."""
