"""Whether a model still makes the vectors that it made when it was first seen."""
