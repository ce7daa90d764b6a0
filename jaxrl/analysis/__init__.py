"""What runs have reached: curves, statistics, comparisons, pictures."""
