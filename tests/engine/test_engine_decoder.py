"""Decoder and app over plain Python in llama.cpp's place: what the real one seldom does."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from gateway.engine.app import EngineApp, Health
from gateway.engine.decoder import Decoder, Guard, Job, Preparer, probe
from gateway.engine.faults import DecodeFailedError, InvalidVectorError, RefusedError
from gateway.engine.journal import Journal
from gateway.engine.pool import Pool

VECTOR = b"\0\0\x80\x3f"


class Context:
    """Gives VECTOR, or raises what it was told to, once each."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.closed = 0

    def embed(self, _):
        if self.failures:
            raise self.failures.pop(0)
        return VECTOR

    def close(self):
        self.closed += 1


class Letters:
    """A tokenizer whose tokens are letters; it never has more than one special token."""

    decomposes = False

    def tokenize(self, text):
        return b"".join(letter.to_bytes(4, "little") for letter in text)

    def cut(self, tokens, limit):
        return tokens[: 4 * limit]


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal", b"key", 3, lambda: 1000.0)


@pytest.fixture
def job(journal):
    return Job(journal.digest(b"text", b"a"), b"\1\0\0\0", truncated=False)


def test_a_failure_is_tried_once_more_in_a_fresh_context(journal, job):
    """The next texts do not pay for it either."""
    context = Context(DecodeFailedError(-3))
    decoded = []
    decoder = Decoder(context, journal, Guard(journal), 0, lambda *told: decoded.append(told))
    assert VECTOR == decoder(job)
    assert (1, [(1, 1)]) == (context.closed, decoded)


@pytest.mark.parametrize("error", [DecodeFailedError(-3), InvalidVectorError("nothing")])
def test_a_second_failure_is_the_texts(journal, job, error):
    """It is told what happened, and the context is fresh again for the next."""
    context = Context(error, error)
    decoded = []
    decoder = Decoder(context, journal, Guard(journal), 0, lambda *told: decoded.append(told))
    with pytest.raises(type(error)):
        decoder(job)
    assert (2, []) == (context.closed, decoded)
    assert VECTOR == decoder(job)


def test_suspects_are_decoded_one_at_a_time(tmp_path):
    """Two suspects in two threads wait for each other; others do not wait for them."""
    journal = Journal(tmp_path / "journal", b"key", 3, lambda: 1000.0)
    digests = [journal.digest(b"text", name) for name in (b"one", b"two", b"fine")]
    journal.enter(0, digests[0])
    journal.enter(1, digests[1])
    journal = Journal(tmp_path / "journal", b"key", 3, lambda: 1000.0)
    guard = Guard(journal)
    entered, leave = threading.Event(), threading.Event()

    def hold(_):
        entered.set()
        leave.wait()
        return b"held"

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(guard.run, 0, digests[0], hold, b"")
        entered.wait()
        second = threads.submit(guard.run, 1, digests[1], lambda _: b"second", b"")
        other = threads.submit(guard.run, 2, digests[2], lambda _: b"other", b"")
        assert b"other" == other.result(10)
        assert not second.done()
        leave.set()
        assert [b"held", b"second"] == [first.result(10), second.result(10)]


def test_a_probe_refuses_what_changes_or_fails():
    """Two vectors for one text, or none, and the model is not served."""

    class Changing(Context):
        def embed(self, _):
            self.closed += 1
            return bytes([self.closed])

    with pytest.raises(RefusedError, match="two vectors"):
        probe(Changing(), Letters(), 100)
    with pytest.raises(RefusedError, match="only zeros"):
        probe(Context(InvalidVectorError("only zeros")), Letters(), 100)
    assert (VECTOR, VECTOR) == probe(Context(), Letters(), 100)


@pytest.fixture
def app(journal):
    """Return a function that makes an app over one context."""
    pools = []

    def make(context):
        guard = Guard(journal)
        hand = Decoder(context, journal, guard, 0)
        pool = Pool(lambda _: hand, 1, max_queue=9, clock=lambda: 0.0)
        pools.append(pool)
        preparer = Preparer(Letters(), journal, guard, slot=1, limit=50, vocab=256)
        executor = ThreadPoolExecutor(1)
        pools.append(executor)
        return EngineApp(preparer, executor, pool, Health({}, dict))

    yield make
    for each in pools:
        each.close() if isinstance(each, Pool) else each.shutdown()


def ask(app, body):
    async def run():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://e") as client:
            return await client.post("/v1/embeddings", json=body)

    return asyncio.run(run())


def test_no_memory_for_a_fresh_context_is_a_503(app):
    """It may be there again in a moment."""
    answer = ask(app(Context(RefusedError("no room"))), {"input": ["a"]})
    assert (503, "engine_out_of_memory") == (answer.status_code, answer.json()["error"]["code"])
    assert "retry-after" in answer.headers


def test_a_failed_decode_names_its_text(app):
    """The item is the one of the request."""
    failed = DecodeFailedError(-3)
    answer = ask(app(Context(failed, failed)), {"input": ["a"]})
    error = answer.json()["error"]
    assert (500, "decode_failed", 0) == (answer.status_code, error["code"], error["item"])


def test_a_mistake_of_our_own_is_not_dressed_up(app):
    """It reaches the server, which logs it and answers 500."""
    with pytest.raises(ZeroDivisionError):
        ask(app(Context(ZeroDivisionError())), {"input": ["a"]})


def test_a_text_without_tokens_is_the_clients_mistake(app):
    """Where the tokenizer adds none, the empty text has nothing to decode."""
    answer = ask(app(Context()), {"input": ["a", ""]})
    error = answer.json()["error"]
    assert (400, 1) == (answer.status_code, error["item"])
    assert "no tokens" in error["message"]


def test_a_client_that_leaves_before_its_body_is_whole_gets_no_answer(app):
    """Nothing is reserved, nothing is sent."""
    messages = [
        {"type": "http.request", "body": b'{"inp', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings"}
    asyncio.run(app(Context())(scope, receive, send))
    assert [] == sent
