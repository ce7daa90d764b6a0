"""Devices: what the machine has, which of them train which part of a run, and sums over them."""
