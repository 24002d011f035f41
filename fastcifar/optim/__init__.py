"""Optimisers, and learning rates as functions of the step."""
