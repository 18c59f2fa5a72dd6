"""All of Prometheus: the collectors, and what puts them around the seams."""
