"""Why the gateway turns a request away, or an upstream's answer: the words of its metrics."""

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
    "not_cached",
    "overload",
    "deadline",
    "draining",
    "drift",
]
"""A closed set. What an upstream refuses, or fails in, is none of these."""

Fault = Literal["count", "index", "width", "not_finite", "zero", "space", "unreadable"]
"""What is wrong with an upstream's vectors. A closed set:

- count: another number of vectors than of texts
- index: their `index` does not say which text each is of
- width: they differ in it, from one another or from the model's other vectors
- not_finite, zero: a vector has no direction
- space: while it was asked, the upstream was found not to make vectors of the model's space
- unreadable: the answer, or a vector in it, is not what the API describes
"""
