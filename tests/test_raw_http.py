"""What is not quite HTTP: refused or read in one way, and never a second request."""

import asyncio
import random
from collections.abc import Iterator, Sequence

from tests.raw_cases import GOOD, Case, cases, get, post
from tests.raw_http import Outcome, exchange
from tests.running import one_model

AT_ONCE = 40


async def all_outcomes(port: int, corpus: Sequence[Case]) -> list[Outcome]:
    abreast = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Outcome:
        async with abreast:
            try:
                return await exchange(port, case.raw, head=case.head)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{case.family}: {case.raw[:400]!r}: {error!r}") from error

    return await asyncio.gather(*map(one, corpus))


def misfit(case: Case, outcome: Outcome) -> str:
    """Return what is wrong with an outcome, or nothing."""
    finals = outcome.finals
    if any(status >= 500 for status in finals):
        return "an error of ours"
    if b"hidden" in outcome.raw and not case.hidden:
        return "it answered to what was hidden"
    if case.refused:
        if outcome.in_step:
            return "the connection went on"
        if len(finals) > case.answers or not 400 <= finals[-1] < 500:
            return "not refused"
    elif len(finals) != case.answers:
        return "another number of answers"
    return ""


def test_nothing_malformed_breaks_or_deceives_the_gateway(gateway, fake_openai):
    """No 5xx, no answer to a hidden request, no connection that goes on where nobody knows how.

    All of them at once on one gateway, whose only upstream sees nothing but whole requests.
    """
    rest = '[server]\nheader_timeout = "2s"\nbody_timeout = "2s"\nmax_body = "64KiB"'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    corpus = list(cases())
    assert len(corpus) >= 300
    outcomes = asyncio.run(all_outcomes(running.port, corpus))
    wrong = [
        f"{why}: {case.family} {case.raw[:300]!r} -> {outcome.finals} {outcome.raw[:200]!r}"
        for case, outcome in zip(corpus, outcomes, strict=True)
        if (why := misfit(case, outcome))
    ]
    assert not wrong, "\n".join(wrong)
    running.wait_until(lambda: running.connections == 0)
    # Whatever reached the application was answered as itself, or called off.
    seen = running.metric("gateway_requests_total")
    off = running.metric("gateway_requests_total", code="499")
    answered = sum(outcome.raw.count(b"\r\nx-request-id: ") for outcome in outcomes)
    assert seen - off == answered
    assert "unforeseen" not in running.log
    assert set(fake_openai.texts) <= {"x"}


def damaged(seed: int, number: int) -> Iterator[Case]:
    """Yield whole requests in a row, in which a few bytes were changed, left out or put in."""
    chance = random.Random(seed)
    chunked = post(b"transfer-encoding: chunked\r\n", b"19\r\n%b\r\n0\r\n\r\n" % GOOD)
    whole = post(b"content-length: %d\r\n" % len(GOOD), GOOD) + chunked + get(b"/v1/models")
    telling = b"\r\n\t :;,/%?#\x00\x0b\x7f\xff0123456789abcdefPOST"
    for _ in range(number):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(raw))
            put_in = bytes([chance.choice(telling)]) * chance.randint(0, 2)
            raw[at : at + chance.randint(0, 2)] = put_in
        yield Case("damaged", bytes(raw))


def test_no_damaged_request_breaks_the_gateway(gateway, fake_openai):
    """Whole answers to what could be read, an error of the client's to the rest, no 5xx."""
    rest = '[server]\nheader_timeout = "500ms"\nbody_timeout = "500ms"'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    corpus = list(damaged(1, 300))
    outcomes = asyncio.run(all_outcomes(running.port, corpus))
    for case, outcome in zip(corpus, outcomes, strict=True):
        assert all(status < 500 for status in outcome.finals), (case.raw, outcome.raw)
        assert 1 <= len(outcome.finals) <= 4, (case.raw, outcome.raw)
    running.wait_until(lambda: running.connections == 0)
    assert "unforeseen" not in running.log
