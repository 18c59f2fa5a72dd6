"""An upstream on raw sockets that does what a text tells it to do, and what may come of that."""
