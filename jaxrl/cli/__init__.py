"""The command `jaxrl`."""
