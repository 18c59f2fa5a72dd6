"""LangChain works as it comes: OpenAIEmbeddings with no option but where to find the gateway.

By default LangChain does not send texts. It cuts them into token ids of OpenAI's cl100k
vocabulary, which other models cannot read. The gateway turns such ids back into the text they
stand for, so the vectors are those of the plain text, bit for bit, and are cached as such.

Start the gateway with scripts/serve, then: .venv/bin/python examples/langchain_defaults.py
LangChain downloads that vocabulary when it first runs; the gateway brings its own copy.
"""

import os

import numpy as np
from langchain_openai import OpenAIEmbeddings
from openai import OpenAI

MODEL = "all-minilm-l6-v2"
URL = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1")
TEXTS = ["Grüße aus Köln!", "One text, one vector.", "お元気ですか"]

langchain = OpenAIEmbeddings(model=MODEL, base_url=URL, api_key="anything")
from_ids = np.array(langchain.embed_documents(TEXTS))

answer = OpenAI(base_url=URL, api_key="anything").embeddings.create(model=MODEL, input=TEXTS)
from_text = np.array([item.embedding for item in answer.data])

print("Vectors made from LangChain's token ids, beside those made from the text:\n")
print(f"{'difference':>12}{'length':>10}")
for text, ours, theirs in zip(TEXTS, from_text, from_ids, strict=True):
    difference, length = np.abs(ours - theirs).max(), np.linalg.norm(theirs)
    print(f"{difference:12.1e}{length:10.6f}  {text}")
