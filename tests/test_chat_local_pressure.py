"""A local chat model that is asked for more than it can write: whose turn it is."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import httpx2
import pytest

from tests.local_chats import PATH, asking, chat_toml
from tests.processes import GatewayProcess, gateway_process
from tests.tiny_chat import write_chat

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        find_spec("llama_cpp") is None, reason="the package llama-cpp-python is missing"
    ),
]

KEYS = "".join(
    f'[[keys]]\nname = "{name}"\nsecret = "key-of-{name}"\nadmin = true\n'
    for name in ("anna", "ben")
)
LONG, SHORT = 1500, 8
"""Tokens of an answer: the first takes a while, the second hardly any time."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One answer at a time, and eight that wait, four of one key."""
    model = write_chat(tmp_path_factory.mktemp("m") / "m.gguf", context=4096, ends=-40.0)
    with gateway_process(chat_toml(model, upstream="max_queue = 8", model=KEYS)) as served:
        yield served


def ask(served: GatewayProcess, key: str, tokens: int) -> tuple[str, int, float, httpx2.Headers]:
    """Ask for an answer of so many tokens; return who asked, the status, and when it was there."""
    answer = httpx2.post(
        served.address + PATH,
        json=asking(max_tokens=tokens),
        headers={"authorization": f"Bearer key-of-{key}"},
        timeout=60,
    )
    return key, answer.status_code, time.monotonic(), answer.headers


def metric(served: GatewayProcess, name: str) -> float:
    """Return a figure of the gateway's."""
    auth = {"authorization": "Bearer key-of-ben"}
    page = httpx2.get(served.address + "/metrics", headers=auth, timeout=10).text
    lines = [line for line in page.splitlines() if line.startswith(name)]
    return float(lines[0].rpartition(" ")[2])


def test_a_key_that_floods_a_model_leaves_others_their_turn(served: GatewayProcess):
    """Beyond its bound it is told so; what another key asks for later comes before its rest."""
    with ThreadPoolExecutor(20) as pool:
        flood = [pool.submit(ask, served, "anna", LONG) for _ in range(12)]
        give_up = time.monotonic() + 20
        while metric(served, "gateway_upstream_queue_depth") < 4:
            assert time.monotonic() < give_up
        _, status, ended, _ = ask(served, "ben", SHORT)
        answers = [each.result() for each in flood]
    assert status == 200
    ends = sorted(end for _, status, end, _ in answers if status == 200)
    assert len(ends) >= 7, "one is written, two are ready, four wait"
    assert ended < ends[-2], "one is written, two are ready, and then one more has its turn"
    refused = [(status, headers) for _, status, _, headers in answers if status != 200]
    assert {status for status, _ in refused} == {429}
    assert all("retry-after-ms" in headers for _, headers in refused)
