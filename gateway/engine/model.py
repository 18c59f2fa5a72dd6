"""llama.cpp for embeddings: a loaded model, its tokenizer, and contexts to decode in.

What chat needs beyond a loaded model is in `gateway.engine.chat`; nothing else touches llama.cpp.
Uses the low-level bindings of llama-cpp-python only: its `Llama` class packs texts into one batch
(other bits), cuts long texts and aborts on some settings. Knows nothing of threads, queues, HTTP or
the journal. What llama.cpp would assert is proved here or in `sizing` before it is called; each
context is for one thread.
"""

import ctypes
from collections import deque
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as llama

from gateway.engine.faults import DecodeFailedError, InvalidVectorError, RefusedError
from gateway.engine.log import Log
from gateway.engine.sizing import ID_BYTES, Behaviour, Plan
from gateway.gguf import GGUFInfo

_POOLING = {"mean": 1, "cls": 2, "last": 3}
_NO_TOKEN = -1
_VOCAB_NONE, _VOCAB_WORDPIECE = 0, 3
_FLASH_OFF, _FLASH_AUTO = 0, -1
_IGNORED = (
    "possible training context overflow",  # sizes are rounded up to 256; texts are not longer
    "model default pooling_type is",  # the config says otherwise, on purpose
)


class LlamaLog:
    """llama.cpp's own log, one line each: warnings and errors, and the rest at level debug.

    It must live as long as llama.cpp is used: the library holds a pointer to it.
    """

    # enum ggml_log_level: 0 none, 1 debug, 2 info, 3 warning, 4 error, 5 goes on with the last.
    _LEVELS = ("debug", "debug", "debug", "warning", "error")

    def __init__(self, log: Log) -> None:
        self._log = log
        self._last = 0
        self._errors: deque[str] = deque(maxlen=3)
        self._callback = llama.llama_log_callback(self._line)
        llama.llama_log_set(self._callback, ctypes.c_void_p(0))

    def errors(self) -> str:
        """Return the last few errors in one line."""
        return "; ".join(self._errors)

    def _line(self, level: int, text: bytes, _: Any) -> None:
        if level < len(self._LEVELS):
            self._last = level
        name = self._LEVELS[self._last]
        if not self._log.writes(name) and name != "error":
            return
        message = text.decode(errors="replace").strip(" .\n")  # progress is dots
        if not message or any(known in message for known in _IGNORED):
            return
        if name == "error":
            self._errors.append(message)
        self._log.write(name, "llama", message=message)


def engine_version() -> str:
    """Return llama.cpp's version and what it was compiled to use of the processor."""
    features = llama.llama_print_system_info().decode().strip(" |")
    return f"llama.cpp {llama.llama_version().decode()} ({features})"


class Model:
    """One GGUF file, loaded. Contexts and tokenizers made from it share its weights."""

    def __init__(
        self, path: str, info: GGUFInfo, said: LlamaLog, *, gpu_layers: int, plain: bool
    ) -> None:
        """Load the file; raises RefusedError. `plain` keeps the weights as they are in the file.

        Otherwise llama.cpp may repack them for the processor, which some virtual machines
        advertise better than they run.
        """
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.use_extra_bufts = not plain
        no_devices = (ctypes.c_void_p * 1)(None)
        if gpu_layers == 0:  # an empty list: a GPU that is built in is not even opened
            params.devices = ctypes.cast(no_devices, ctypes.c_void_p)
        self._handle = handle = llama.llama_model_load_from_file(path.encode(), params)
        if not handle:
            raise RefusedError(f"llama.cpp cannot load the file: {said.errors()}")
        self._said = said
        self._gpu = gpu_layers != 0
        self.vocab = llama.llama_model_get_vocab(handle)
        self.vocab_size = int(llama.llama_vocab_n_tokens(self.vocab))
        self.width = int(llama.llama_model_n_embd_out(handle))
        self.encoder = bool(llama.llama_model_has_encoder(handle))
        if self.width != info.width:
            raise RefusedError(f"vectors have {self.width} components; the file says {info.width}")
        _check_vocabulary(self.vocab)

    def behaviour(self, pooling: str) -> Behaviour:
        """Return what a context of this model does; found out by making a tiny one."""
        lane = _Lane(self, pooling, limit=8, batch=8, flash=_FLASH_AUTO)
        found = Behaviour(has_memory=bool(lane.memory), causal=lane.causal)
        lane.close()
        return found

    def new_context(self, params: Any) -> Any:
        """Return llama.cpp's context; raises RefusedError."""
        params.offload_kqv = params.op_offload = self._gpu
        made = llama.llama_init_from_model(self._handle, params)
        if not made:
            raise RefusedError(
                f"llama.cpp cannot make a context for {params.n_ctx} tokens: {self._said.errors()}"
            )
        return made


def _check_vocabulary(vocab: Any) -> None:
    """Refuse a vocabulary on which llama.cpp's tokenizer aborts."""
    kind = llama.llama_vocab_type(vocab)
    if kind == _VOCAB_NONE:
        raise RefusedError("the file holds no tokenizer")
    wordpiece = kind == _VOCAB_WORDPIECE
    needed = {
        "BOS": (wordpiece or llama.llama_vocab_get_add_bos(vocab), llama.llama_vocab_bos(vocab)),
        "EOS": (llama.llama_vocab_get_add_eos(vocab), llama.llama_vocab_eos(vocab)),
        "SEP": (wordpiece, llama.llama_vocab_sep(vocab)),
    }
    for name, (added, token) in needed.items():
        if added and token == _NO_TOKEN:
            raise RefusedError(f"the tokenizer adds a token to texts that it does not have: {name}")


class Tokenizer:
    """Turns text into the model's tokens, specials included; for one thread.

    "[SEP]" in a text is text, not a special token.
    """

    def __init__(self, model: Model) -> None:
        self._vocab = model.vocab
        self.decomposes = llama.llama_vocab_type(model.vocab) == _VOCAB_WORDPIECE
        """Whether texts are to be given in NFD. BERT's tokenizer takes accents off that way, and
        llama.cpp's knows the Latin ones only: of a Hangul syllable it would keep one letter."""
        self._size = 4096
        self._buffer = (ctypes.c_int32 * self._size)()
        whole, body = self.tokenize(b"a"), self._tokens(b"a", specials=False)
        starts = range(0, len(whole), ID_BYTES)
        start = next((at for at in starts if whole.startswith(body, at)), 0)
        self._end = len(whole) - start - len(body)

    def tokenize(self, text: bytes) -> bytes:
        """Return the tokens of a UTF-8 text as bytes of int32."""
        return self._tokens(text, specials=True)

    def cut(self, tokens: bytes, limit: int) -> bytes:
        """Return at most `limit` tokens: the special ones at the end are kept, others dropped."""
        room = limit * ID_BYTES
        if len(tokens) <= room:
            return tokens
        end = min(self._end, room)
        return tokens[: room - end] + tokens[len(tokens) - end :]

    def ends_with_special(self) -> bool:
        """Return whether the tokenizer puts a special token after each text."""
        return self._end > 0

    def _tokens(self, text: bytes, *, specials: bool) -> bytes:
        count = llama.llama_tokenize(
            self._vocab, text, len(text), self._buffer, self._size, specials, False
        )
        if count < 0:  # so many would be needed
            self._size = -count
            self._buffer = (ctypes.c_int32 * self._size)()
            return self._tokens(text, specials=specials)
        return ctypes.string_at(self._buffer, count * ID_BYTES)


class _Lane:
    """One llama_context with its batch."""

    def __init__(
        self, model: Model, pooling: str, *, limit: int, batch: int, flash: int, threads: int = 1
    ) -> None:
        params = llama.llama_context_default_params()
        params.n_ctx = limit
        params.n_batch = params.n_ubatch = batch
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.pooling_type = _POOLING[pooling]
        params.flash_attn_type = flash
        params.embeddings = True
        params.no_perf = True
        self._handle = model.new_context(params)
        self.memory = llama.llama_get_memory(self._handle)
        self.causal = bool(llama.llama_get_causal_attn(self._handle))
        made = llama.llama_pooling_type(self._handle)
        if made != _POOLING[pooling]:
            raise RefusedError(f"llama.cpp made pooling type {made} of {pooling}")
        # Without a KV cache decoding is encoding; T5 must be told so.
        encode = model.encoder or not self.memory
        self._run = llama.llama_encode if encode else llama.llama_decode
        self._limit, self._size = limit, batch * ID_BYTES
        self._width = model.width * ctypes.sizeof(ctypes.c_float)
        self._positions = np.arange(limit, dtype=np.int32).tobytes()
        # No sequence ids: all is sequence 0. Every token is an output.
        self._batch = llama.llama_batch(
            token=(ctypes.c_int32 * batch)(),
            pos=(ctypes.c_int32 * batch)(),
            logits=(ctypes.c_int8 * batch)(*[1] * batch),
        )

    def embed(self, tokens: bytes) -> bytes:
        size = len(tokens)
        if not 0 < size <= self._limit * ID_BYTES:
            raise DecodeFailedError(-1)  # llama.cpp would abort; callers have checked
        if self.memory:
            llama.llama_memory_clear(self.memory, False)
        start = 0
        while start < size:
            stop = min(start + self._size, size)
            if stop == size - ID_BYTES:
                stop -= ID_BYTES  # one token alone takes a path whose bits depend on threads
            self._decode(tokens[start:stop], self._positions[start:stop])
            start = stop
        return self._vector()

    def _decode(self, tokens: bytes, positions: bytes) -> None:
        batch = self._batch
        ctypes.memmove(batch.token, tokens, len(tokens))
        ctypes.memmove(batch.pos, positions, len(positions))
        batch.n_tokens = len(tokens) // ID_BYTES
        code = self._run(self._handle, batch)
        if code != 0:
            raise DecodeFailedError(code)

    def _vector(self) -> bytes:
        found = llama.llama_get_embeddings_seq(self._handle, 0)
        if not found:
            raise InvalidVectorError("nothing")
        vector = ctypes.string_at(found, self._width)
        numbers = np.frombuffer(vector, dtype="<f4").astype(np.float64)
        square = float(numbers @ numbers)
        if square == 0.0:
            raise InvalidVectorError("only zeros")
        if not np.isfinite(square):
            raise InvalidVectorError("infinite or undefined numbers")
        return vector

    def close(self) -> None:
        if self._handle:
            llama.llama_free(self._handle)
            self._handle = None


class Context:
    """What one thread decodes with: a lane for short texts, and one for the rest."""

    def __init__(self, model: Model, plan: Plan, pooling: str, threads: int) -> None:
        self._model, self._plan = model, plan
        self._pooling, self._threads = pooling, threads
        self._short = plan.short * ID_BYTES
        self._lanes: list[_Lane] = []
        self._open()

    def embed(self, tokens: bytes) -> bytes:
        """Decode one text; return its vector as little-endian float32, not normalized.

        Raises DecodeFailedError and InvalidVectorError, after which the context is to be closed:
        the next text gets a fresh one, or RefusedError where there is no memory for it.
        """
        if not self._lanes:
            self._open()
        return self._lanes[0 if len(tokens) <= self._short else -1].embed(tokens)

    def close(self) -> None:
        """Drop the state and give the memory back."""
        while self._lanes:
            self._lanes.pop().close()

    def _open(self) -> None:
        plan = self._plan
        wanted = [(plan.short, _FLASH_OFF)] if plan.short else []
        if plan.limit > plan.short:
            wanted.append((plan.limit, _FLASH_AUTO))
        try:
            for limit, flash in wanted:
                batch = min(limit, plan.batch)
                self._lanes.append(
                    _Lane(
                        self._model,
                        self._pooling,
                        limit=limit,
                        batch=batch,
                        flash=flash,
                        threads=self._threads,
                    )
                )
        except RefusedError:
            self.close()
            raise
