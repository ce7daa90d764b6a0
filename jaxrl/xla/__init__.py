"""Workarounds for weaknesses of XLA and JAX.

The docstring of each module says what it works around, on which versions, how that was measured and
when the module can be deleted. `python -m benchmarks.workarounds` measures all of them again, and
docs/workarounds.md has past measurements.
"""
