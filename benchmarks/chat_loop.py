"""The floor of a local chat: `python -m benchmarks.chat_loop GGUF`, and an Asked as JSON on stdin.

One `llama_cpp.Llama` that writes one answer after the other, for some seconds; no HTTP, no text, no
checks. Prints a Written as JSON. Of the gateway's engine it uses nothing.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from itertools import islice

from llama_cpp import Llama

from benchmarks.writing import Asked, Written, prompt_text

NICENESS = 10
"""The engine's: what else runs on the machine then takes as much from both."""
CHUNK = 256
"""Tokens of a prompt decoded at a time, the engine's too."""


def main(gguf: str) -> None:
    """Measure and print."""
    os.nice(NICENESS)
    asked = Asked(**json.load(sys.stdin))
    model = Llama(
        gguf,
        n_ctx=asked.context,
        n_batch=CHUNK,
        n_ubatch=CHUNK,
        n_threads=asked.threads,
        n_threads_batch=asked.threads,
        flash_attn=True,
        no_perf=True,
        verbose=False,
    )
    _write(model, asked, Written())
    written = Written()
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() < began + asked.seconds:
        _write(model, asked, written)
    written.cpu = time.process_time() - cpu
    print(json.dumps(asdict(written)))


def _write(model: Llama, asked: Asked, written: Written) -> None:
    """Write one answer, and add it to what is written."""
    text = f"<|im_start|>user\n{prompt_text(asked.sentences)}<|im_end|>\n<|im_start|>assistant\n"
    began = time.perf_counter()
    prompt = model.tokenize(text.encode(), add_bos=False, special=True)
    model.reset()
    answer = model.generate(prompt, top_k=0, top_p=1.0, min_p=0.0, temp=asked.temperature)
    next(answer)
    first = time.perf_counter()
    for _ in islice(answer, asked.tokens - 1):
        pass
    written.prompt += len(prompt)
    written.prefilling += first - began
    written.tokens += asked.tokens - 1
    written.decoding += time.perf_counter() - first


if __name__ == "__main__":
    main(*sys.argv[1:])
