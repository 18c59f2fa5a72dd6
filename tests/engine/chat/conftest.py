"""Chat models and engines for the tests here."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.chat.running_chat import RunningChat
from tests.tiny_chat import HERMES, write_chat

StartChat = Callable[..., RunningChat]


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny chat models by name; "endless" never ends by itself, "slow" takes its time too."""
    at = tmp_path_factory.mktemp("chats")
    return {
        "short": write_chat(at / "short.gguf"),
        "tools": write_chat(at / "tools.gguf", template=HERMES, context=1024),
        "endless": write_chat(at / "endless.gguf", context=2048, ends=-40.0),
        "slow": write_chat(
            at / "slow.gguf", context=4096, ends=-40.0, layers=4, width=256, vocab=20_000
        ),
        "mute": write_chat(at / "mute.gguf", template=None),
    }


@pytest.fixture
def start_chat(llama: None, tmp_path: Path) -> Iterator[StartChat]:
    """Return a function that starts an engine, which is ended after the test."""
    with ExitStack() as stack:
        count = 0

        def run(model: Path, **settings: object) -> RunningChat:
            nonlocal count
            count += 1
            directory = tmp_path / f"c{count}"
            directory.mkdir()
            return stack.enter_context(RunningChat(model, directory, **settings))

        yield run


@pytest.fixture(scope="module")
def short(
    llama: None, chats: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningChat]:
    """An engine with the tiny chat model, shared by a module's tests."""
    with RunningChat(chats["short"], tmp_path_factory.mktemp("c"), contexts=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def tools(
    llama: None, chats: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningChat]:
    """An engine whose model calls functions."""
    with RunningChat(chats["tools"], tmp_path_factory.mktemp("t")) as engine:
        yield engine
