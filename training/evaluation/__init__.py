"""Measuring what models do."""
