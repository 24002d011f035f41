"""Measurements. Every figure of the project comes from a command in here and a file in `bench/results/`."""
