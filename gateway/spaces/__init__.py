"""Who serves a model, and whose vectors are of one space."""
