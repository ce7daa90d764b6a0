"""What each file of `jaxrl/xla` still brings; `python -m benchmarks.workarounds --help`."""
