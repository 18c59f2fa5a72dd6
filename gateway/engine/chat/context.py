"""One llama_context to write with: decode, forget, logits, and stopping in the middle.

What changes the bits of logits is fixed in `Lane` and named by `bit_options`. For one thread.
"""

import ctypes

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as llama

from gateway.engine.chat.faults import DecodeFailedError, StoppedError
from gateway.engine.chat.sizing import ChatPlan
from gateway.engine.faults import RefusedError
from gateway.engine.model import Model
from gateway.engine.sizing import ID_BYTES

_FLASH_AUTO = -1
"""On wherever it can be: measured on a CPU, some 5 % more of the prompt and 12 % more of the answer
a second than without."""
_F16 = 1
_ABORTED = 2
# llama.cpp asks between two steps of a computation whether to go on, from the threads that compute.
# It is answered by a function of the C library over one byte: "" is 0, "1" is 1; no Python there.
_ASKED = ctypes.cast(ctypes.CDLL(None).atoi, llama.ggml_abort_callback)


def bit_options(plan: ChatPlan, *, gpu_layers: int, plain: bool) -> tuple[str, ...]:
    """Return what else than the weights and the build decides the bits of an answer.

    Threads are among it: a single token is computed in a way that depends on them. So is the
    longest context: some models turn positions differently in long ones.
    """
    return (
        f"chunk={plan.chunk}",
        f"context={plan.limit}",
        f"threads={plan.threads}",
        f"gpu_layers={gpu_layers}",
        f"plain={plain}",
        "flash=auto",
        "kv=f16",
    )


class Cancel:
    """Calls one request's work off, from any thread; there is no way back."""

    def __init__(self) -> None:
        self._flag = ctypes.create_string_buffer(2)
        self.address = ctypes.addressof(self._flag)

    def stop(self) -> None:
        """Make the work end with StoppedError: in the middle of a prompt (on a CPU), or before the
        next token."""
        self._flag[0] = b"1"

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return bool(self._flag[0] != b"\0")


class Lane:
    """One context with its batch. Positions are counted from 0; all is one sequence."""

    def __init__(self, model: Model, plan: ChatPlan) -> None:
        """Raises RefusedError."""
        params = llama.llama_context_default_params()
        params.n_ctx = plan.limit
        params.n_batch = params.n_ubatch = plan.chunk
        params.n_seq_max = 1
        params.n_outputs_max = 1
        params.n_threads = params.n_threads_batch = plan.threads
        params.flash_attn_type = _FLASH_AUTO
        params.type_k = params.type_v = _F16
        params.swa_full = True  # or what left a model's window could not be gone back to
        params.no_perf = True
        self._handle = model.new_context(params)
        self._memory = llama.llama_get_memory(self._handle)
        if model.encoder or not self._memory:
            llama.llama_free(self._handle)
            raise RefusedError("this model does not go on with a text: it is not made for chat")
        self._cancel = Cancel()
        self.logits: npt.NDArray[np.float32] = np.zeros(model.vocab_size, dtype=np.float32)
        """Those of the last decode that wanted them."""
        self.end = 0
        """Tokens that are decoded and remembered."""
        self._batch = llama.llama_batch(
            token=(ctypes.c_int32 * plan.chunk)(),
            pos=(ctypes.c_int32 * plan.chunk)(),
            logits=(ctypes.c_int8 * plan.chunk)(),
        )

    def obey(self, cancel: Cancel) -> None:
        """Let `cancel` stop what is decoded from now on."""
        self._cancel = cancel
        llama.llama_set_abort_callback(self._handle, _ASKED, cancel.address)

    def decode(self, tokens: bytes, *, logits: bool) -> None:
        """Add tokens (bytes of int32, at most a chunk) behind the end; raises StoppedError and
        DecodeFailedError.

        After either, what is behind the former end is to be forgotten.
        """
        if self._cancel.stopped:
            raise StoppedError
        batch, count = self._batch, len(tokens) // ID_BYTES
        batch.n_tokens = count
        ctypes.memmove(batch.token, tokens, len(tokens))
        for at in range(count):
            batch.pos[at] = self.end + at
            batch.logits[at] = 0
        batch.logits[count - 1] = logits
        code = llama.llama_decode(self._handle, batch)
        if code == _ABORTED:
            raise StoppedError
        if code != 0:
            raise DecodeFailedError(f"code {code}")
        self.end += count
        if logits:
            self._read()

    def forget(self, position: int) -> bool:
        """Drop what is at `position` and behind. False: this model cannot, and all is forgotten."""
        if position > 0 and llama.llama_memory_seq_rm(self._memory, 0, position, -1):
            self.end = position
            return True
        llama.llama_memory_clear(self._memory, False)
        self.end = 0
        return position == 0

    def close(self) -> None:
        """Give the memory back; may be called again."""
        if self._handle:
            llama.llama_free(self._handle)
            self._handle = None

    def _read(self) -> None:
        found = llama.llama_get_logits_ith(self._handle, -1)
        if not found:
            raise DecodeFailedError("it gave no logits")
        ctypes.memmove(self.logits.ctypes.data, found, self.logits.nbytes)
