"""What the parent tells the engine: one line of JSON on standard input.

Knows the names and their bounds; not what they mean for a model.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


@dataclass(frozen=True, slots=True)
class Settings:
    """One engine: a file, a socket, and how much of the machine it may use."""

    model: str
    """Path of the GGUF file."""
    journal: str
    """Path of the crash journal, which outlives the process."""
    journal_key: str
    """Key of the journal's digests, in hex: 1 to 64 bytes."""
    task: Literal["embedding", "chat"] = "embedding"
    """What the model is for: vectors of texts, or answers to messages."""
    socket: str | None = None
    """Path of the Unix socket; it appears when the model is loaded and proved."""
    contexts: Positive | None = None
    """Texts or chats decoded at once; None is a text for each usable core, and one chat."""
    threads: Positive | None = None
    """Threads that compute for one context; None is 1, and for chat all cores but one, shared
    out."""
    n_ctx: Positive | None = None
    """Longest text in tokens, for chat with its answer; None is what the model was trained on,
    within memory."""
    pooling: str | None = None
    """mean, cls or last; None is what the file says. Not for chat."""
    chat_template: str | None = None
    """Name of a template that we have, or the text of one; None is the file's own."""
    weights: str | None = None
    """SHA-256 of the file in hex, where the parent knows it: it names the model's answers."""
    gpu_layers: Annotated[int, msgspec.Meta(ge=-1, le=1 << 20)] = 0
    """Layers to put on a GPU; -1 is all."""
    max_queue: Positive = 16384
    """Texts that may wait, or requests for chat."""
    fd: int | None = None
    """An inherited listening socket, which takes the place of `socket`."""
    idle: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Seconds without a request after which the engine ends; None is never."""
    restarts: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How often the parent has started this engine again; only shown."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug` also passes on what llama.cpp says at its own level info."""

    def key(self) -> bytes:
        """Return the journal's key; raises ValueError."""
        key = bytes.fromhex(self.journal_key)
        if not 1 <= len(key) <= 64:
            raise ValueError("journal_key must hold 1 to 64 bytes in hex")
        return key


def decode_settings(line: bytes) -> Settings:
    """Read the line the parent wrote; raises ValueError with the name at fault."""
    settings = msgspec.json.decode(line, type=Settings)
    settings.key()
    return settings
