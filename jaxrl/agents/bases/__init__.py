"""Base classes that several agents share."""
