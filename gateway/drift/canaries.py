"""The texts that every model is asked for again and again, and how the kept draws are named.

What a model said of them at first sight is kept in the cache like any other vectors: the first one
stored wins, so restarts, workers and replicas all compare with the same. A purge ends it, as it
ends everything.
"""

from gateway.cache.scopes import OWN
from gateway.spaces.reference import TEXTS as TEXTS  # noqa: PLC0414 - the same few texts for both
from gateway.types import Caller

DRAWS = 5
"""Draws that are kept of each text, to learn how far a model's answers lie from each other."""
SEEDS = range(1, DRAWS + 1)
"""The seeds that name the kept draws, in a request as anybody could send it."""
TENANT = OWN
"""Whose the kept draws are; of all tenants' vectors of a model it is said what is said of these."""
ASKER = Caller(name=TENANT, tenant=TENANT)
"""Who asks for them, in the gateway and in commands that work beside it on the same store."""
