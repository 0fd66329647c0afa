"""Runs, models and lineage, with and without a tracking server."""
