"""Platforms that speak the wire, for tests and benchmarks: real HTTP, controllable faults."""
