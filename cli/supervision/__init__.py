"""Keeps processes running: starts them, forwards what they say, starts again what dies."""
