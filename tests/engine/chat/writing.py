"""A tiny chat model, loaded in this process, and what a session writes with it."""

from dataclasses import dataclass, replace
from pathlib import Path

from gateway.engine.chat.context import Cancel
from gateway.engine.chat.sampling import Sampling
from gateway.engine.chat.session import Session
from gateway.engine.chat.sizing import ChatPlan, plan_chat
from gateway.engine.chat.vocabulary import Vocabulary
from gateway.engine.log import Log
from gateway.engine.model import LlamaLog, Model
from gateway.engine.settings import Settings
from gateway.gguf import describe

LOG = LlamaLog(Log("error", fd=2))
"""For all models of this process: llama.cpp holds a pointer to it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with its vocabulary and sizes."""

    model: Model
    vocabulary: Vocabulary
    plan: ChatPlan

    def session(self) -> Session:
        return Session(self.model, self.vocabulary, self.plan)

    def tokens(self, text: str) -> list[int]:
        return self.vocabulary.tokenize(text.encode())

    def turn(self, text: str) -> list[int]:
        return self.tokens(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")


def load(path: Path, *, chunk: int = 32, threads: int = 1) -> Loaded:
    """Load a model; chunks are small, so that short prompts have several.

    Threads wait for each other busily, which is slow where others use the processor.
    """
    info = describe(path)
    settings = Settings(model=str(path), journal="", journal_key="00", threads=threads)
    plan = replace(plan_chat(info, settings, cores=2, memory=None), chunk=chunk)
    model = Model(str(path), info, LOG, gpu_layers=0, plain=False)
    return Loaded(model, Vocabulary(model), plan)


def written(session: Session, prompt: list[int], *samplings: Sampling) -> list[object]:
    """Return all there is to know of an answer for each sampling: logits, tokens, probabilities."""
    prefilled = session.prefill(prompt, Cancel())
    answers = [list(prefilled.choice(sampling, n)) for n, sampling in enumerate(samplings)]
    return [prefilled.logits.tobytes(), *answers]


def text(answer) -> bytes:
    """Return the bytes of an answer."""
    return b"".join(sampled.piece for sampled in answer)
