"""The same text, asked for twice, has the same vector: bit for bit, and of length 1.

Four exclamations are embedded together, and then again, one at a time and the last one first.
Printed are their similarities, the largest difference between the two rounds, and the lengths.

Start the gateway with scripts/serve, then: .venv/bin/python examples/same_text_twice.py
"""

import os

import numpy as np
from openai import OpenAI

MODEL = "all-minilm-l6-v2"
EXCLAMATIONS = ["Hurray!", "Well done!", "Watch out!", "Oh no!"]

client = OpenAI(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1"), api_key="anything"
)


def embed(texts):
    answer = client.embeddings.create(model=MODEL, input=texts)
    return np.array([item.embedding for item in answer.data])


together = embed(EXCLAMATIONS)
alone = np.concatenate([embed([text]) for text in reversed(EXCLAMATIONS)])[::-1]

print("How similar they are (the cosine of the angle between two vectors):\n")
print(" " * 10 + "".join(f"{text:>12}" for text in EXCLAMATIONS))
# The vectors have length 1, so the dot product of two of them is that cosine.
for text, row in zip(EXCLAMATIONS, together @ together.T, strict=True):
    print(f"{text:10}" + "".join(f"{similarity:12.3f}" for similarity in row))

print("\nBoth rounds side by side:\n")
print(" " * 10 + f"{'difference':>12}{'length, 1st':>14}{'length, 2nd':>14}")
for text, first, second in zip(EXCLAMATIONS, together, alone, strict=True):
    difference = np.abs(first - second).max()
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    print(f"{text:10}{difference:12.1e}{lengths[0]:14.6f}{lengths[1]:14.6f}")
