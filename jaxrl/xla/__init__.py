"""What exists only because of a compiler or of JAX itself; each file says when it can go."""
