"""Measurements of the workarounds in `jaxrl/xla`; see `python -m benchmarks.workarounds --help`."""
