"""Benchmarks: the gateway beside its floors and its peers, in one run (`scripts/bench`)."""
