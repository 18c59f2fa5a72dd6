"""A local chat model: one stream through the gateway, and a bare loop over the same file.

The model is written for it, with random weights. Both use the same number of threads, and may use
every core beside.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import contenders
from benchmarks.answers import expect_chat
from benchmarks.chat_rounds import ChatClient
from benchmarks.load import LoadError
from benchmarks.report import Goal, Part, memory_lines, rates
from benchmarks.requests import chat_request
from benchmarks.rounds import Figures, Subject, Workload, play
from benchmarks.servers import environment, python
from benchmarks.setting import Setting
from benchmarks.streams import Streamed
from benchmarks.writing import Asked, Written, prompt_text

MODEL = "random"
VOCAB, CONTEXT = 32_000, 2048
FULL, QUICK = (12, 1024, 16), (4, 256, 4)
"""Layers, width and heads: of a small model that people run, and of one that is soon written."""
LOOP = "bare llama-cpp-python"
GREEDY, DRAWN, PROMPT = "an answer, greedy", "an answer, temperature 1", "a prompt"
LEAST = 0.95


@dataclass(frozen=True, slots=True)
class BareLoop:
    """The floor: a process of its own for each round, without HTTP."""

    gguf: Path
    asked: Mapping[str, Asked]
    name: str = LOOP
    optional: bool = False

    def measure(self, workload: Workload, seconds: float) -> Figures:
        """See Subject.measure; it makes prompts of the same kind itself."""
        asked = replace(self.asked[workload.name], seconds=seconds)
        ran = subprocess.run(
            [str(word) for word in python("benchmarks.chat_loop", self.gguf)],
            input=json.dumps(asdict(asked)),
            env=environment({}),
            capture_output=True,
            check=False,
            text=True,
        )
        if ran.returncode:
            raise LoadError(f"{LOOP}: {ran.stderr.strip()[-300:]}")
        written = Written(**json.loads(ran.stdout))
        figures, things = _figures(workload, written)
        return replace(figures, cpu=written.cpu / things * 1e6)


def run(setting: Setting, directory: Path) -> Part | None:
    """Measure, where there is llama.cpp; raises StartError and LoadError."""
    if not setting.has_llama():
        return None
    setting.say("local chat: writing a model of random weights")
    shape = QUICK if setting.plan.rounds == 1 else FULL
    gguf = _write_model(directory / "random.gguf", *shape)
    # One core is left to the gateway itself, as its own default leaves it.
    threads = len(setting.others) if setting.others else max(1, (os.cpu_count() or 1) - 1)
    asked = _asked(threads)
    with ExitStack() as stack:
        contender = contenders.local_chat_gateway(
            gguf, MODEL, directory, threads=threads, context=CONTEXT
        )
        gateway = setting.start(stack, contender)
        idle = [gateway.memory()]
        subjects: list[Subject] = [BareLoop(gguf, asked), ChatClient(gateway, _streamed)]
        workloads = [_workload(name, each) for name, each in asked.items()]
        measured = play("local chat", subjects, workloads, setting.plan, setting.say)
        goals = [Goal(name, contenders.GATEWAY, LOOP, LEAST) for name in (GREEDY, DRAWN)]
        part = rates("Local chat: one stream, random weights", "token", LOOP, measured, goals)
        part.lines.append(
            f"The model: {shape[0]} layers of {shape[1]}, {VOCAB:,} tokens, q8_0, "
            f"{gguf.stat().st_size / 1e6:.0f} MB; threads that compute: {threads}."
        )
        part.lines += memory_lines([gateway], idle)
        return part


def _write_model(path: Path, layers: int, width: int, heads: int) -> Path:
    # Not at the top: only this part needs what writes such files.
    from gguf import GGMLQuantizationType

    from tests.tiny_chat import write_chat

    return write_chat(
        path,
        context=CONTEXT,
        layers=layers,
        width=width,
        heads=heads,
        vocab=VOCAB,
        kind=GGMLQuantizationType.Q8_0,
        # It never ends by itself.
        ends=-40.0,
    )


def _asked(threads: int) -> Mapping[str, Asked]:
    answer = Asked(threads, CONTEXT, temperature=0.0, sentences=1, tokens=128, seconds=0.0)
    return {
        GREEDY: answer,
        DRAWN: replace(answer, temperature=1.0),
        PROMPT: replace(answer, sentences=8, tokens=1),
    }


def _workload(name: str, asked: Asked) -> Workload:
    check = expect_chat(stream=True, tokens=asked.tokens)
    return Workload(name, _requests(asked), 1, check, per=asked.tokens)


def _requests(asked: Asked) -> Iterator[bytes]:
    while True:
        yield chat_request(
            MODEL,
            prompt_text(asked.sentences),
            stream=True,
            stream_options={"include_usage": True},
            temperature=asked.temperature,
            max_tokens=asked.tokens,
        )


def _streamed(workload: Workload, streamed: Streamed) -> tuple[Figures, int]:
    """Make figures of streams that say their usage."""
    written = Written()
    for answer in streamed.answers:
        usage = json.loads(answer.body.split(b"\n\n")[-3].removeprefix(b"data: "))["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        written.prompt += usage["prompt_tokens"] - cached
        written.prefilling += answer.first
        written.tokens += usage["completion_tokens"] - 1
        written.decoding += answer.whole - answer.first
    return _figures(workload, written)


def _figures(workload: Workload, written: Written) -> tuple[Figures, int]:
    """Return tokens a second, of prompts where an answer is one token, and how many there were."""
    if workload.per == 1:
        return Figures(written.prompt / written.prefilling, None), written.prompt
    return Figures(written.tokens / written.decoding, None), written.tokens
