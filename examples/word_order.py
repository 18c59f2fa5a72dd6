"""The order of the words counts, if only a little: "The man bites the dog" is another sentence
than "The dog bites the man", though both have the same words.

Printed is how similar each relative is to "The man bites the dog". A model that merely counted
words would give 1.000 to all that only change their order.

Start the gateway with scripts/serve, then: .venv/bin/python examples/word_order.py
"""

import os

import numpy as np
from openai import OpenAI

MODEL = "all-minilm-l6-v2"
SENTENCES = [
    "The man bites the dog",
    "The dog bites the man",
    "the dog the man bites",
    "bites the the man dog",
    "The dog is bitten by the man",
    "The man is bitten by the dog",
    "The man strokes the dog",
    "The man bites the apple",
    "The cat bites the dog",
    "The weather is fine today",
]

client = OpenAI(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1"), api_key="anything"
)
answer = client.embeddings.create(model=MODEL, input=SENTENCES)
vectors = np.array([item.embedding for item in answer.data])

# The vectors have length 1, so their dot product is the cosine of the angle between them.
similarities = vectors @ vectors[0]
first_words = sorted(SENTENCES[0].lower().split())

print(f'How similar to "{SENTENCES[0]}":\n')
for position in np.argsort(-similarities):
    sentence = SENTENCES[position]
    same = "same words" if sorted(sentence.lower().split()) == first_words else ""
    print(f"{similarities[position]:8.3f}  {sentence:30}{same}".rstrip())
