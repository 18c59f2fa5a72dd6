"""Models and engines for the tests here; all are skipped, by name, where llama.cpp is missing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
from gguf import PoolingType

from tests.engine.running_engine import ROOT, RunningEngine
from tests.tiny_gguf import write_decoder, write_encoder

MINILM = ROOT / "gateway" / "assets" / "all-minilm-l6-v2" / "all-minilm-l6-v2-q8_0.gguf"
StartEngine = Callable[..., RunningEngine]


@pytest.fixture(scope="session")
def llama() -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is missing (extra [local])")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models by name."""
    at = tmp_path_factory.mktemp("models")
    return {
        "encoder": write_encoder(at / "encoder.gguf"),
        "chat": write_decoder(at / "chat.gguf"),
        "decoder": write_decoder(at / "decoder.gguf", pooling=PoolingType.LAST, add_eos=True),
        "slow": write_decoder(
            at / "slow.gguf", pooling=PoolingType.LAST, vocab=24_000, context=4096
        ),
    }


@pytest.fixture
def start(llama: None, tmp_path: Path) -> Iterator[StartEngine]:
    """Return a function that starts an engine, which is ended after the test."""
    with ExitStack() as stack:
        count = 0

        def run(model: Path, **settings: object) -> RunningEngine:
            nonlocal count
            count += 1
            directory = tmp_path / f"e{count}"
            directory.mkdir()
            return stack.enter_context(RunningEngine(model, directory, **settings))

        yield run


@pytest.fixture(scope="module")
def encoder(
    llama: None, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningEngine]:
    """An engine with the tiny encoder, shared by a module's tests."""
    with RunningEngine(models["encoder"], tmp_path_factory.mktemp("e"), contexts=2) as engine:
        yield engine


@pytest.fixture
def minilm() -> Path:
    """The bundled model."""
    if not MINILM.exists():
        pytest.skip(f"{MINILM.name} is missing: build it with its script")
    return MINILM
