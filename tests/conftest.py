"""What every test may ask for: a gateway that listens, a fake OpenAI, and `--no-skips`."""

import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from gateway.backends.transport import open_transport
from gateway.config import parse
from gateway.tokens import Cl100k
from tests.running import Open, Running, one_model
from tests.upstream import FakeOpenAI, serve

OpenGateway = Callable[..., Running]

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile(
    "gateway",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gateway")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="fail the session if any test was skipped"
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--no-skips") and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    skipped = _skipped(config) if config.getoption("--no-skips") else []
    if skipped:
        terminalreporter.section("skipped, which --no-skips forbids", red=True, bold=True)
        for name in skipped:
            terminalreporter.line(name)


def _skipped(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(reporter, pytest.TerminalReporter)
    return [report.nodeid for report in reporter.stats.get("skipped", [])]


@pytest.fixture(scope="session")
def served_openai() -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI(width=32)
    with serve(fake):
        yield fake


@pytest.fixture
def fake_openai(served_openai: FakeOpenAI) -> FakeOpenAI:
    """A fake OpenAI that has forgotten everything and behaves; its vectors are 32 wide."""
    return _behaving(served_openai)


def _behaving(fake: FakeOpenAI) -> FakeOpenAI:
    fake.forget()
    fake.width, fake.noise = 32, 0.0
    fake.key, fake.models, fake.allow = None, (), ()
    fake.flavour, fake.max_batch = "openai", None
    return fake


@pytest.fixture(scope="session")
def ending() -> Iterator[list[Running]]:
    """Gateways that have been told to stop: each is waited for, but not between the tests."""
    told: list[Running] = []
    yield told
    for running in told:
        running.join()


def _opening(place: Path, ending: list[Running]) -> Iterator[OpenGateway]:
    started: list[Running] = []

    def start(
        toml: str, *, open_transport: Open = open_transport, asks: bool = False, **environ: str
    ) -> Running:
        directory = place / f"run{len(started)}"
        directory.mkdir()
        config = parse(toml, source=None, environ=environ, base_dir=place)
        started.append(Running(config, directory, open_transport=open_transport, asks=asks))
        return started[-1].start()

    yield start
    for running in started:
        running.stop()
    for running in started:
        if running.asks:
            # Else the upstream of the next test would be asked what it did not expect.
            running.join()
    ending.extend(started)


@pytest.fixture
def gateway(tmp_path: Path, ending: list[Running]) -> Iterator[OpenGateway]:
    """Return a function that starts a gateway from the TOML of its config."""
    yield from _opening(tmp_path, ending)


@pytest.fixture(scope="module")
def module_gateway(
    tmp_path_factory: pytest.TempPathFactory, ending: list[Running]
) -> Iterator[OpenGateway]:
    """Return the same for tests that share a gateway because they change nothing in it."""
    yield from _opening(tmp_path_factory.mktemp("gateway"), ending)


@pytest.fixture(scope="module")
def edge(served_openai: FakeOpenAI, module_gateway: OpenGateway) -> Running:
    """A gateway for all tests of a module, none of which changes what it knows."""
    toml = one_model(_behaving(served_openai).base_url, rest='[server]\nmax_body = "64KiB"')
    return module_gateway(toml + 'aliases = ["alias"]\n[models."text-*"]\nupstreams = ["fake"]')


@pytest.fixture(scope="session")
def clients_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let tiktoken, which LangChain asks, find its table without a network.

    The name is the SHA-1 of its address; tiktoken checks the file's SHA-256 itself.
    """
    cache = tmp_path_factory.mktemp("tiktoken")
    ranks = Cl100k().mergeable_ranks.items()
    lines = b"".join(b64encode(token) + b" %d\n" % rank for token, rank in ranks)
    (cache / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_bytes(lines)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        yield
