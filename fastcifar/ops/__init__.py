"""Layers for CPUs in kernels of our own: what torch's take longer for (`conv_norm_act.py` is the entrance)."""
