"""Where clients are: connections, bodies, handlers, and what every request gets."""
