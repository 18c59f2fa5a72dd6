"""Why the gateway itself turns a request away: the words that metrics tell it with."""

from typing import Literal

Reason = Literal[
    "http",
    "header_size",
    "slow_client",
    "host",
    "origin",
    "auth",
    "unknown",
    "media_type",
    "body_size",
    "depth",
    "schema",
    "rate",
    "tokens",
    "concurrency",
    "budget",
    "overload",
    "deadline",
    "draining",
]
"""A closed set. What an upstream refuses, or fails in, is none of these."""
