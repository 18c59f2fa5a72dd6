"""`gateway embed`: lines in, vectors out, by a server that runs."""

import json
import stat
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tests.cli.commands import gateway
from tests.cli.lines import TEXTS, rows, written
from tests.redis_server import free_port
from tests.running import Running
from tests.upstream import Exchange
from tests.upstream_behaviours import status


@pytest.fixture
def running(config: Path, gateway_for: Callable[[Path], Running]) -> Running:
    return gateway_for(config)


def embed(running: Running, *words: str | Path, code: int = 0) -> str:
    """Embed by a server that runs; return what was said."""
    return gateway("embed", "--url", running.base_url, "-m", "m", *words, code=code).stderr


# What goes in and comes out


def test_each_line_has_its_vector(running, fake_openai, tmp_path):
    """In the order of the lines, bit for bit what the server answers; none is asked for twice."""
    texts = [*TEXTS, *reversed(TEXTS), "  spaces stay  ", "täxt"]
    out = tmp_path / "out.jsonl"
    said = embed(running, "-i", written(tmp_path, texts), "-o", out, "--batch", "7")
    assert [row["index"] for row in rows(out)] == list(range(102))
    assert [row["embedding"] for row in rows(out)] == running.vectors(texts)
    assert sorted(fake_openai.texts) == sorted(set(texts))
    assert said.startswith("102 texts, 32 wide, ")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_json_lines_keep_their_ids(running, tmp_path):
    """The text is in a field; the rest of the object stays behind."""
    lines = [
        json.dumps({"text": text, "n": number, "more": [1]}) for number, text in enumerate(TEXTS)
    ]
    file = written(tmp_path, lines, "in.jsonl")
    out = tmp_path / "out"
    embed(running, "-i", file, "-o", out, "--id-field", "n")
    assert [row["id"] for row in rows(out)] == list(range(50))
    assert [row["embedding"] for row in rows(out)] == running.vectors(TEXTS)
    embed(running, "-i", file, "-o", out, "--field", "more", code=1)


def test_base64_holds_the_same_bits(running, tmp_path):
    """Little-endian float32, as OpenAI's API has it; with the request's own fields sent along."""
    file = written(tmp_path, TEXTS)
    embed(running, "-i", file, "-o", tmp_path / "1", "--seed", "-3")
    embed(running, "-i", file, "-o", tmp_path / "2", "--seed", "-3", "--base64")
    floats = [row["embedding"] for row in rows(tmp_path / "1")]
    packed = [np.frombuffer(b64decode(row["embedding"]), "<f4") for row in rows(tmp_path / "2")]
    assert floats == [row.astype(float).tolist() for row in packed]
    assert floats == running.vectors(TEXTS, seed=-3)


def test_safetensors_hold_the_same_bits(running, tmp_path):
    """One tensor, a row for each line; ids are in the metadata."""
    lines = [json.dumps({"body": text, "key": f"k-{text}"}) for text in TEXTS]
    file = written(tmp_path, lines)
    out = tmp_path / "out.safetensors"
    embed(running, "-i", file, "-o", out, "--field", "body", "--id-field", "key", "--batch", "9")
    (vectors,) = safetensors.numpy.load_file(out).values()
    assert (vectors.dtype, vectors.shape) == (np.float32, (50, 32))
    assert vectors.astype(float).tolist() == running.vectors(TEXTS)
    with safetensors.safe_open(out, "numpy") as opened:
        said = opened.metadata()
    assert (said["model"], said["skipped"]) == ("m", "[]")
    assert json.loads(said["ids"]) == [f"k-{text}" for text in TEXTS]


def test_no_texts_make_no_vectors(running, tmp_path):
    """An empty file is right, and so is what comes of it."""
    file = written(tmp_path, [])
    embed(running, "-i", file, "-o", tmp_path / "1")
    embed(running, "-i", file, "-o", tmp_path / "2.safetensors")
    assert (tmp_path / "1").read_bytes() == b""
    assert safetensors.numpy.load_file(tmp_path / "2.safetensors")["vectors"].shape == (0, 0)


BAD_LINES = {
    "blank": (b"one\n\nthree\n", "line 2: there is no text"),
    "white": (b"one\n \t\r\nthree\n", "line 2: there is no text"),
    "no UTF-8": (b"one\ntw\xffo\n", "line 2: is not UTF-8 (byte 3)"),
    "no JSON": (b'{"text": "one"}\n{"text"\n', "line 2: is no JSON object"),
    "a list": (b'{"text": "one"}\n["two"]\n', "line 2: is no JSON object"),
    "no field": (b'{"text": "one"}\n{"txt": "two"}\n', "line 2: has no field 'text'"),
    "a number": (b'{"text": "one"}\n{"text": 2}\n', "line 2: what 'text' holds is no text"),
    "half a pair": (b'{"text": "one"}\n{"text": "\\ud800"}\n', "line 2: "),
    "an empty text": (b'{"text": "one"}\n{"text": ""}\n', "line 2: there is no text"),
}


@pytest.mark.parametrize(("raw", "said"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(running, tmp_path, raw, said):
    """And not quoted; there is no output."""
    file = tmp_path / ("in.jsonl" if raw.startswith(b"{") else "in.txt")
    file.write_bytes(raw)
    shown = embed(running, "-i", file, "-o", tmp_path / "out", code=1)
    assert f"error: {said}" in shown
    assert "two" not in shown
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_is_no_text(running, tmp_path):
    """Some editors write one; nobody means it. Line ends of either kind are none either."""
    file = tmp_path / "in.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    embed(running, "-i", file, "-o", tmp_path / "out")
    assert [row["embedding"] for row in rows(tmp_path / "out")] == running.vectors(["one", "two"])


# What a server refuses


async def refuse_bad(exchange: Exchange) -> None:
    """Refuse a request with `bad` in one of its texts, without saying which, as OpenAI does."""
    given_ = exchange.request.body["input"]
    if any("bad" in text for text in given_):
        refusal = exchange.flavour.refusal(400, "This text is not for me.")
        exchange.status, exchange.body = refusal.status, refusal.body


@pytest.mark.parametrize("directly", [True, False])
def test_a_refused_text_is_named_or_skipped(running, fake_openai, tmp_path, directly):
    """Though the server only says that something was wrong with the batch."""
    fake_openai.always(refuse_bad)
    texts = [*TEXTS[:20], "bad 1", *TEXTS[20:], "bad 2"]
    file = written(tmp_path, texts)
    out = tmp_path / "out"
    url = fake_openai.base_url if directly else running.base_url
    words = ["embed", "--url", url, "-m", "m", "-i", file, "-o", out, "--batch", "16"]
    refused = gateway(*words, code=1).stderr
    assert "line 21: " in refused
    assert "This text is not for me." in refused
    assert not out.exists()
    said = gateway(*words, "--skip-invalid").stderr
    assert "2 skipped" in said
    skipped = [row["index"] for row in rows(out) if row["embedding"] is None]
    assert skipped == [20, 51]
    fake_openai.always(None)
    vectors = [row["embedding"] for row in rows(out) if row["embedding"] is not None]
    if not directly:
        assert vectors == running.vectors(TEXTS)


def test_a_skipped_row_is_not_a_number(fake_openai, tmp_path):
    """In a tensor every row has its place; the metadata says which are none."""
    fake_openai.always(refuse_bad)
    file = written(tmp_path, ["bad 1", "bad 2", *TEXTS[:3], "", "bad 3"])
    out = tmp_path / "out.safetensors"
    words = ["-i", file, "-o", out, "--skip-invalid", "--batch", "2"]
    gateway("embed", "--url", fake_openai.base_url, "-m", "m", *words)
    vectors = safetensors.numpy.load_file(out)["vectors"]
    assert np.isnan(vectors).all(axis=1).tolist() == [True, True, *[False] * 3, True, True]
    with safetensors.safe_open(out, "numpy") as opened:
        assert json.loads(opened.metadata()["skipped"]) == [0, 1, 5, 6]


def test_a_server_that_refuses_everything_is_an_error(fake_openai, tmp_path):
    """Nulls alone are no output that anybody wants."""
    fake_openai.always(refuse_bad)
    words = ["-i", written(tmp_path, ["bad"] * 3), "-o", tmp_path / "out", "--skip-invalid"]
    said = gateway("embed", "--url", fake_openai.base_url, "-m", "m", *words, code=1).stderr
    assert "every text was refused" in said


def test_a_mistake_in_the_request_is_told_at_once(running, tmp_path):
    """A model that nobody serves is nothing that a text is at fault for."""
    file = written(tmp_path, TEXTS)
    url = ["--url", running.base_url]
    said = gateway("embed", *url, "-m", "q", "-i", file, "--skip-invalid", code=1).stderr
    assert "'q' is not served here. Served: m" in said
    words = ["-m", "m", "--dimensions", "99", "-i", file]
    running.vectors(TEXTS[:1])
    assert "has 32 dimensions" in gateway("embed", *url, *words, code=1).stderr


def test_a_busy_server_is_asked_again(fake_openai, tmp_path):
    """When it says that it may be; and one that says not to ask again is believed."""
    file = written(tmp_path, TEXTS[:3])
    words = ["embed", "--url", fake_openai.base_url, "-m", "m", "-i", file, "-o", tmp_path / "out"]
    fake_openai.script(status(429, {"retry-after-ms": "20"}))
    gateway(*words)
    assert fake_openai.calls == 2
    fake_openai.script(status(500, {"x-should-retry": "false"}))
    assert "The server had an error." in gateway(*words, code=1).stderr
    assert fake_openai.calls == 3


def test_a_server_that_is_no_embeddings_server_is_told(fake_openai, tmp_path):
    """An answer without vectors is not written as if it had some."""
    file = written(tmp_path, TEXTS[:3])
    words = ["embed", "--url", fake_openai.base_url, "-m", "m", "-i", file, "-o", tmp_path / "out"]
    for body in (b"<html>", b"{}", b'{"data": []}', b'{"data": [{"embedding": "AA=="}]}'):
        fake_openai.script(status(200, body=body))
        assert "error: the server" in gateway(*words, code=1).stderr


@pytest.mark.parametrize(
    "url", [f"http://127.0.0.1:{free_port()}/v1", "localhost:8000", "http://["]
)
def test_an_address_where_nobody_is_is_told(tmp_path, url):
    """At once: to wait would be no help."""
    words = ["--url", url, "-m", "m", "-i", written(tmp_path, TEXTS[:3])]
    assert "cannot be reached" in gateway("embed", *words, code=1).stderr


def test_a_key_goes_to_the_server(fake_openai, tmp_path):
    """From the environment; it is shown to nobody."""
    fake_openai.key = "sk-canary"
    file = written(tmp_path, TEXTS[:3])
    words = ["embed", "--url", fake_openai.base_url, "-m", "m", "-i", file, "-o", tmp_path / "out"]
    gateway(*words, OPENAI_API_KEY="sk-canary")
    gateway(*words, GATEWAY_API_KEY="sk-canary", OPENAI_API_KEY="sk-other")
    refused = gateway(*words, "--api-key", "sk-wrong-and-secret", code=1)
    assert "secret" not in refused.output
