"""Search by meaning: ten fruit are described, and "green" finds the green ones.

Each description is a vector, so is the question, and a matrix product compares them: no index, no
database. For another question add it: .venv/bin/python examples/fruit_search.py what monkeys eat

Start the gateway with scripts/serve, then: .venv/bin/python examples/fruit_search.py
"""

import os
import sys

import numpy as np
from openai import OpenAI

MODEL = "all-minilm-l6-v2"
FRUIT = [
    "Apple: crisp and red, from the tree to the lunch box.",
    "Banana: long, curved and yellow, easy to peel.",
    "Blueberry: a tiny, dark blue berry, good in pancakes.",
    "Cherry: small and deep red, with a stone in the middle.",
    "Kiwi: brown outside, vivid green inside, full of vitamins.",
    "Lemon: yellow and very sour, used for its juice.",
    "Melon: round and green, with a thick green rind, good in summer.",
    "Orange: a thick peel, juicy segments, a glass for breakfast.",
    "Plum: purple skin and soft, golden flesh.",
    "Strawberry: soft, red and sweet, best with cream.",
]
question = " ".join(sys.argv[1:]) or "green"

client = OpenAI(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1"), api_key="anything"
)


def embed(texts):
    answer = client.embeddings.create(model=MODEL, input=texts)
    return np.array([item.embedding for item in answer.data])


# All vectors have length 1, so the dot product is the cosine of the angle between two.
similarities = embed(FRUIT) @ embed([question])[0]

print(f'Closest to "{question}":\n')
for position in np.argsort(-similarities):
    print(f"{similarities[position]:8.3f}  {FRUIT[position]}")
