"""Evaluation, figures, galleries and reports of finished runs, and the learning-rate range test."""
