"""What a local chat model is asked to write, and what it wrote: in the gateway or a bare loop."""

from dataclasses import dataclass
from itertools import islice

from benchmarks.requests import sentences


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be written, and with what."""

    threads: int
    context: int
    temperature: float
    sentences: int
    """How long a prompt is; no two are alike."""
    tokens: int
    """Tokens of an answer."""
    seconds: float


@dataclass(slots=True)
class Written:
    """What was written; times are seconds."""

    prompt: int = 0
    """Tokens of prompts, all decoded."""
    prefilling: float = 0.0
    """From the requests to the first tokens."""
    tokens: int = 0
    """Tokens that came behind the first ones."""
    decoding: float = 0.0
    cpu: float = 0.0


def prompt_text(count: int) -> str:
    """Return so many sentences, other ones each time."""
    return " ".join(islice(sentences(), count))
