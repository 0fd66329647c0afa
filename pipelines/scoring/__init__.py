"""Scores as rows: explanations, flags, feedback."""
