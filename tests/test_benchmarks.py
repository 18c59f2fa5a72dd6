"""The benchmarks run, and would notice if what they measure were wrong."""

import base64
import io
import json
import re
import struct
import subprocess
import sys
from array import array
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path

import pytest

from benchmarks.answers import expect
from benchmarks.load import Load, LoadError, Outcome, drive
from benchmarks.progress import Say
from benchmarks.requests import numbered_requests, post
from benchmarks.rounds import Figures, Measured, Plan
from benchmarks.servers import Contender, StartError
from benchmarks.setting import Setting
from tests.served import serve

ROOT = Path(__file__).resolve().parent.parent
Table = list[dict[str, str]]
PARTS = ("misses", "hits", "stores", "local", "chat", "start")
"""Those that are tried here; tests/test_scaling.py has a small fleet."""


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def tables(markdown: str) -> dict[str, Table]:
    """Return the rows of each part, by its title up to the first colon or comma."""
    found: dict[str, Table] = {}
    for part in markdown.split("\n### ")[1:]:
        rows = [line[1:-1].split("|") for line in part.splitlines() if line.startswith("|")]
        head, _, *cells = [[cell.strip() for cell in row] for row in rows]
        found[re.split("[:,\n]", part)[0]] = [dict(zip(head, row, strict=True)) for row in cells]
    return found


@pytest.fixture(scope="module")
def quick() -> dict[str, Table]:
    ran = bench(*PARTS, "--quick", "--markdown")
    assert (ran.returncode, ran.stderr if ran.returncode else "") == (0, "")
    return tables("\n" + ran.stdout)


def test_a_quick_run_measures_the_gateway_beside_its_floors(quick):
    """Every part of an upstream has rows for the gateway and for a floor, with rates above 0."""
    servers = {part: {row["server"] for row in quick[part]} for part in ("Misses", "Hits")}
    assert servers == {
        "Misses": {"gateway", "starlette + aiohttp", "bare uvicorn + aiohttp"},
        "Hits": {"gateway", "bare uvicorn, bytes ready"},
    }
    rates = [row["requests/s"] for part in servers for row in quick[part]]
    assert [rate for rate in rates if float(rate.replace(",", "")) <= 0] == []
    assert "gateway" in {row["server"] for row in quick["Start"]}


def test_misses_go_upstream_and_hits_do_not(quick):
    """Each request of the one asks the upstream once, and none of the other does."""
    calls = {part: {row["upstream calls"] for row in quick[part]} for part in ("Misses", "Hits")}
    assert calls == {"Misses": {"1.00"}, "Hits": {"0.00"}}


@pytest.mark.engine
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs the extra [local]")
def test_a_quick_run_measures_the_local_model_beside_the_bare_pool(quick):
    """The local part compares the two in texts a second."""
    assert [row["server"] for row in quick["Local model"]] == ["bare context pool", "gateway"]
    assert all(float(row["texts/s"].replace(",", "")) > 0 for row in quick["Local model"])


def test_a_quick_run_relays_chats_beside_the_upstream_itself(quick):
    """Streamed slowly, streamed at once and not streamed: each a call, none of them kept."""
    servers = ["upstream, direct", "gateway", "bare uvicorn + aiohttp"]
    assert [row["server"] for row in quick["Relay"]] == servers * 3
    assert {row["upstream calls"] for row in quick["Relay"]} == {"1.00"}
    figures = ("chunks/s", "first chunk p50 ms", "a chunk's way p50 ms")
    assert all(float(row[name].replace(",", "")) > 0 for row in quick["Relay"] for name in figures)


def test_a_quick_run_tells_kept_chats_again(quick):
    """Seeded answers come without a call, as JSON and as a stream."""
    rows = quick["Chat hits"]
    assert {(row["asked"], row["server"]) for row in rows} == {
        (asked, server)
        for asked in ("not streamed", "streamed")
        for server in ("gateway", "bare uvicorn, bytes ready")
    }
    assert {row["upstream calls"] for row in rows} == {"0.00"}


@pytest.mark.engine
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs the extra [local]")
def test_a_quick_run_measures_local_chat_beside_the_bare_loop(quick):
    """Answers of both kinds and prompts, in tokens a second."""
    assert [row["server"] for row in quick["Local chat"]] == [
        "bare llama-cpp-python",
        "gateway",
    ] * 3
    assert all(float(row["tokens/s"].replace(",", "")) > 0 for row in quick["Local chat"])


def test_an_unknown_benchmark_is_refused():
    """The command says which there are."""
    ran = bench("mises")
    assert ran.returncode == 2
    assert "choose from misses, hits, stores, local, chat, start" in ran.stderr


def test_an_answer_other_than_200_ends_the_measurement():
    """A server that fails quickly is not taken for a fast one."""

    async def failing(scope, receive, send):
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    load = Load(repeat(post({"input": "a"})), 2)
    with serve(failing) as served, pytest.raises(LoadError, match="not a plain 200"):
        drive(served.address, load, 1.0)


def test_numbered_requests_are_all_different():
    """A cache can answer none of them, and each is whole."""
    source = numbered_requests()
    requests = [next(source) for _ in range(1000)]
    assert len(set(requests)) == 1000
    for request in requests[:3]:
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        json.loads(body)


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [((1.0, 0.0), None), ((1.0, 0.0, 0.0), "not 1 vectors of 2"), ((1.0, 1.0), "length 1")],
)
def test_a_wrong_vector_ends_the_measurement(vector, complaint):
    """Width and length of the vectors are looked at, in the encoding that was asked for."""
    packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    body = json.dumps({"data": [{"embedding": packed}]}).encode()
    outcome = Outcome(array("d", [0.1]), 0.1, b"", body)
    if complaint is None:
        expect(1, 2)(outcome)
    else:
        with pytest.raises(LoadError, match=complaint):
            expect(1, 2)(outcome)


def test_a_peer_that_does_not_start_is_left_out_by_name():
    """The others go on; one of ours that does not start ends the benchmark."""
    setting = Setting(Plan(1, 0.1), Say(io.StringIO()), False, None, None)
    broken = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with ExitStack() as stack:
        assert setting.start_all(stack, [Contender("Peer", lambda _: broken, peer=True)]) == []
        with pytest.raises(StartError, match="no such thing"):
            setting.start_all(stack, [Contender("ours", lambda _: broken)])
    assert [note.partition(":")[0] for note in setting.say.notes] == ["Peer is left out"]


def test_a_ratio_is_taken_within_a_round():
    """What slows a whole round changes no ratio."""
    rounds = {"gateway": (100.0, 10.0), "floor": (200.0, 20.0)}
    figures = {("w", name): [Figures(r, 1.0) for r in rates] for name, rates in rounds.items()}
    assert Measured(figures).ratios("w", "gateway", "floor") == [0.5, 0.5]
