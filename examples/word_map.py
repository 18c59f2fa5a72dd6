"""A map of fifty common words: those that mean something alike lie close together.

Every word is a point in 384 dimensions. The map shows the two directions in which these words
differ most (their principal components), and says how much of the whole that is.

Start the gateway with scripts/serve, then: .venv/bin/python examples/word_map.py
The picture is written to examples/out/word_map.png; matplotlib draws it.
"""

import os
import sys
from pathlib import Path

import numpy as np
from openai import OpenAI

try:
    from matplotlib.figure import Figure
except ImportError:
    sys.exit("The picture is drawn by matplotlib: .venv/bin/pip install matplotlib")

MODEL = "all-minilm-l6-v2"
PICTURE = Path(__file__).parent / "out" / "word_map.png"
WORDS = {
    "animals": "dog cat horse cow sheep lion tiger elephant bear mouse",
    "vehicles": "car bus train bicycle ship boat aeroplane lorry motorcycle tram",
    "feelings": "anger fear love hope pride shame envy grief boredom surprise",
    "the body": "head arm leg hand foot eye ear nose mouth finger",
    "weather": "rain snow wind storm sun cloud fog thunder ice frost",
}
words = [word for line in WORDS.values() for word in line.split()]
colours = [f"C{kind}" for kind, line in enumerate(WORDS.values()) for _ in line.split()]

client = OpenAI(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1"), api_key="anything"
)
answer = client.embeddings.create(model=MODEL, input=words)
vectors = np.array([item.embedding for item in answer.data])

centred = vectors - vectors.mean(axis=0)
_, sizes, directions = np.linalg.svd(centred, full_matrices=False)
points = centred @ directions[:2].T
shown = (sizes[:2] ** 2).sum() / (sizes**2).sum()

figure = Figure(figsize=(11, 8), layout="constrained")
axes = figure.subplots()
for number, kind in enumerate(WORDS):
    axes.scatter([], [], color=f"C{number}", label=kind)  # an entry of the legend
for word, colour, (x, y) in zip(words, colours, points, strict=True):
    axes.text(x, y, word, color=colour, ha="center", va="center")
axes.update_datalim(points)
axes.margins(0.06)
axes.set(title=f"{len(words)} words in two of {vectors.shape[1]} dimensions", xticks=[], yticks=[])
axes.legend()
PICTURE.parent.mkdir(exist_ok=True)
figure.savefig(PICTURE, dpi=100)

similarities = vectors @ vectors.T - 2 * np.eye(len(words))  # no word is its own neighbour
nearest = similarities.argmax(axis=1)
alike = sum(colours[word] == colours[other] for word, other in enumerate(nearest))
print(f"{alike} of {len(words)} words have a word of their own kind as the nearest, such as\n")
for word, other in list(enumerate(nearest))[::5]:
    print(f"  {words[word]:10}{words[other]:12}{similarities[word, other]:.3f}")
print(f"\nThe map shows {shown:.0%} of how they differ: {PICTURE}")
