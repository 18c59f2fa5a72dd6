"""What `tests.heavy.fuzz` throws strange bytes at, and how it thinks of them."""
