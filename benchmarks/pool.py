"""The floor of a local model: contexts in a loop, without HTTP: `python -m benchmarks.pool GGUF S`.

One thread for each core, each with a context of one compute thread, one text per decode, for S
seconds; no queue, no checks. Prints texts, seconds and CPU seconds as JSON. Of the gateway's engine
it uses nothing: it is what llama.cpp's low-level functions can do.
"""

import ctypes
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from llama_cpp import llama_cpp as llama

from benchmarks.requests import TOKENS, sentences

BATCH = 512
TEXTS = 2000
"""Distinct texts made beforehand for each thread."""
MEAN = 1
START_TIMEOUT = 60.0
NICENESS = 5
"""The engine's: what else runs on the machine then takes as much from both."""


class Lane:
    """One context and its batch."""

    def __init__(self, model: Any) -> None:
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = params.n_threads = params.n_threads_batch = 1
        params.pooling_type = MEAN
        # Quicker for texts this short.
        params.flash_attn_type = 0
        params.embeddings = params.no_perf = True
        self._context = llama.llama_init_from_model(model, params)
        self._vocab = llama.llama_model_get_vocab(model)
        self._width = llama.llama_model_n_embd_out(model)
        self._batch = llama.llama_batch_init(BATCH, 0, 1)
        for place in range(BATCH):
            self._batch.pos[place] = place
            self._batch.n_seq_id[place] = self._batch.logits[place] = 1
            self._batch.seq_id[place][0] = 0

    def embed(self, text: bytes) -> bytes:
        """Return the text's vector; raises RuntimeError."""
        batch = self._batch
        count = llama.llama_tokenize(self._vocab, text, len(text), batch.token, BATCH, True, False)
        batch.n_tokens = count
        if count != TOKENS or llama.llama_encode(self._context, batch):
            raise RuntimeError(f"a text of {count} tokens could not be decoded")
        return ctypes.string_at(llama.llama_get_embeddings_seq(self._context, 0), 4 * self._width)


def main(gguf: str, seconds: float) -> None:
    """Measure and print."""
    os.nice(NICENESS)
    silent = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(gguf.encode(), params)
    began: list[float] = []
    threads = usable_cores()
    start = threading.Barrier(
        threads,
        action=lambda: began.extend([time.perf_counter(), time.process_time()]),
        timeout=START_TIMEOUT,
    )

    def work() -> int:
        lane = Lane(model)
        texts = [text.encode() for text in islice(sentences(), TEXTS)]
        for text in texts[:20]:
            lane.embed(text)
        start.wait()
        count = 0
        until = began[0] + seconds
        while time.perf_counter() < until:
            lane.embed(texts[count % TEXTS])
            count += 1
        return count

    with ThreadPoolExecutor(threads) as threaded:
        working = [threaded.submit(work) for _ in range(threads)]
        done = sum(each.result() for each in working)
    took, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(json.dumps({"texts": done, "seconds": took, "cpu": cpu}))


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
