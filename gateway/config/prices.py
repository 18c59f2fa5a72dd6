"""What OpenAI's embedding models cost, for the models whose config names no price.

As of November 2026: the list prices of the standard tier, without the Batch API's discount, from
OpenAI's pricing page (developers.openai.com/api/docs/pricing) and the pages of the models there.
"""

from collections.abc import Mapping

PRICES: Mapping[str, float] = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}
"""US dollars for a million input tokens, by OpenAI's name of the model."""
