"""Reads finished runs only: nothing here trains."""
