"""Runs: the host loop, its events, and the run directory."""
