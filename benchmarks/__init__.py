"""Measurements: `python -m benchmarks.throughput --help`."""
