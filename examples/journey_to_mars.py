"""An answer that can be had again: a question about a journey to Mars, asked five times without a
seed, and five times with seed=123 and temperature=0.

Printed are the tokens and the system_fingerprint of each answer, its first words, and how far the
five answers lie apart: the average distance between their embeddings. With the seed it is 0.0, also
where the model at the upstream never says the same twice: the gateway keeps its first answer.

Start the gateway with OPENAI_API_KEY=… scripts/serve, then:
.venv/bin/python examples/journey_to_mars.py
Other models are named by options: … journey_to_mars.py --chat NAME --embedding NAME
"""

import argparse
import os
from itertools import combinations

import numpy as np
from openai import OpenAI

EXCERPT = """\
On the forty-first day the Earth was a blue star among the others, and nobody looked for it any
more. The water turned green, and Ines, who had kept bees in Porto before she kept filters alive,
took the pumps apart with a spoon. Behind them lay the storm that had cost them the long antenna;
ahead lay eleven weeks without a voice from home. So they held a council. Jonas wanted to save the
oxygen, and sleep. Ines wanted to plant the wheat that was meant for the plains of Mars. "A
journey," she said, "is a field, too." In the end they did both: they slept in turns, and who was
awake watered the wheat. When the red disc had grown to the size of a coin, the first ear was
ripe.
"""
QUESTION = "Why did the crew plant the wheat on the way? Answer in two sentences."
MESSAGES = [
    {"role": "system", "content": f"Answer questions about this excerpt:\n\n{EXCERPT}"},
    {"role": "user", "content": QUESTION},
]
TIMES = 5

options = argparse.ArgumentParser(description="Ask about a journey to Mars, with and without seed.")
options.add_argument("--chat", default="gpt-4o-mini", metavar="MODEL")
options.add_argument("--embedding", default="all-minilm-l6-v2", metavar="MODEL")
options.add_argument("--max-tokens", type=int, default=150, metavar="N")
models = options.parse_args()

client = OpenAI(
    base_url=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1"), api_key="anything"
)


def ask(**sampling):
    return client.chat.completions.create(
        model=models.chat, messages=MESSAGES, max_tokens=models.max_tokens, **sampling
    )


def average_distance(texts):
    answer = client.embeddings.create(model=models.embedding, input=texts)
    vectors = [np.array(item.embedding) for item in answer.data]
    return np.mean([np.linalg.norm(a - b) for a, b in combinations(vectors, 2)])


def show(heading, **sampling):
    answers = [ask(**sampling) for _ in range(TIMES)]
    texts = [answer.choices[0].message.content for answer in answers]
    print(f"{heading}:\n\n{'tokens':>8}  {'system_fingerprint':20}answer")
    for answer, text in zip(answers, texts, strict=True):
        fingerprint, words = answer.system_fingerprint or "none", " ".join(text.split())
        print(f"{answer.usage.completion_tokens:8}  {fingerprint:20}{words[:60]}…")
    print(f"\naverage distance between the answers: {average_distance(texts):.4}\n")


show("Without a seed")
show("With seed=123 and temperature=0", seed=123, temperature=0)
