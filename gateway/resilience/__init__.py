"""Decisions about failure: pure, with the clock and chance given."""
