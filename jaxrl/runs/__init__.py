"""Runs: the host loop, its progress, and the directory it leaves behind."""
