"""Analysis of runs: learning curves, statistics, comparisons and plots."""
