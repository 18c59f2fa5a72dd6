"""No SDK: one POST, vectors as numbers or as base64, and both are the same.

base64 is what OpenAI's SDKs ask for behind the scenes: 4 bytes a number (little-endian float32),
where the digits of a number take about 21.

Start the gateway with scripts/serve, then: .venv/bin/python examples/plain_http.py
"""

import base64
import os
import struct

import httpx2  # httpx, as it goes on; with httpx or requests the lines are the same

URL = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000/v1")
TEXT = "One text, one vector."


def post(encoding_format):
    body = {"model": "all-minilm-l6-v2", "input": TEXT, "encoding_format": encoding_format}
    answer = httpx2.post(f"{URL}/embeddings", json=body, timeout=60)
    answer.raise_for_status()
    embedding = answer.json()["data"][0]["embedding"]
    print(f"{encoding_format:>6}: {len(answer.content):5} bytes, {str(embedding)[:48]}…")
    print(f"        Cache-Status: {answer.headers['cache-status']}")
    return embedding


numbers = post("float")
packed = base64.b64decode(post("base64"))
unpacked = list(struct.unpack(f"<{len(packed) // 4}f", packed))

print(f"\n{len(numbers)} numbers, {len(unpacked)} from base64: equal is {numbers == unpacked}")
print(f"length of the vector: {sum(number * number for number in numbers) ** 0.5:.6f}")
