"""What a gateway's parent process and its workers say to each other about changes of the config."""

from dataclasses import dataclass

from gateway.change import Change
from gateway.config import Config


@dataclass(frozen=True, slots=True)
class Prepare:
    """To a worker: build what this config makes. It answers with Done."""

    number: int
    config: Config


@dataclass(frozen=True, slots=True)
class Commit:
    """To a worker: go over to what was prepared. It answers with Done."""

    number: int
    config: Config
    change: Change


@dataclass(frozen=True, slots=True)
class Abort:
    """To a worker: give up what was prepared."""

    change: Change


@dataclass(frozen=True, slots=True)
class Done:
    """From a worker: done, or why not."""

    number: int
    """Of the message that this answers: an answer may come too late for anybody to wait for it."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Uses:
    """From a worker: which engines its requests may still ask."""

    engines: frozenset[str]
