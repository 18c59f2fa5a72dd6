"""What JSON's parsers disagree about: each is a request or a 400, at both endpoints, and quick.

The families are those of JSONTestSuite; the bodies are made here. Python's own parser, told to be
strict, says what is JSON.
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.edge import error, post
from tests.running import Running, one_model

DEEP = 100_000
QUICK = 10.0
"""Seconds in which no body may keep the gateway; each takes milliseconds."""


def values() -> Iterator[bytes]:
    """Yield what may stand, or not, where a value is expected."""
    yield from b"0 -0 1 -1 1.5 1e5 1E+5 1e-5 0.1e1 1.0E10 123456789012345678901234567890".split()
    yield from b"1e400 -1e400 1e-400 1e999999 0.1e99999999999999999999 -0.0 5e-324".split()
    yield from (b"9" * 5000, b"1." + b"3" * 5000, b"1e" + b"9" * 5000)
    yield from b"+1 .5 -.5 1. 01 -01 1e 1e+ 1.e1 0x1 1_0 - -- 1a 1e1.5 0e 0.e1 -foo 1,2".split()
    yield from b"NaN nan Infinity -Infinity -NaN inf +Inf Infinity1".split()
    yield from b"true false null True nul truee tru undefined none TRUE".split()
    yield from b"\xef\xbc\x91 \xc2\xa01 \x0c1 1\x00 \x001 1\xe2\x80\xa8 '1' 1;".split(b" ")
    yield from b"[] [1,] [,1] [1,,2] [1 2] [ [1 1] [1}] [[]] ]".split()
    yield from (b"{}", b'{"a"}', b'{"a":}', b"{a:1}", b'{"a":1,}', b'{,"a":1}', b'{"a" 1}')
    yield from (b'{"a":1 "b":2}', b"{'a':1}", b'{"a":1', b'{"a":1]', b'{"a"::1}', b'{"a":1}}')
    yield from (b'{"a":1,"a":2}', b'{"":0}', b'{"a":/**/1}', b'{"a":1}//', b'{"a":#\n1}')
    yield from (b"{1:1}", b"{null:1}")
    yield from map(quoted, strings())
    yield from (b'"', b'"a', b"a", b"'a'", b'"a"b', b'""""', b"`a`", b'"\\"', b'"\\')


def strings() -> Iterator[bytes]:
    """Yield what may stand between quotes, or not."""
    yield from (b"", b"a", b"\\n\\t\\\\\\/\\b\\f\\r\\u0041", b"\\u0000", b"\x7f", b"\\uD83D\\uDE00")
    yield from ("é€😀\u2028\ufeff\uffff\U0010ffff".encode(), b"\xc2\x80")
    # Half a pair, the wrong way round, and what is no code point.
    yield from (b"\\uD83D", b"\\uDE00", b"\\uDE00\\uD83D", b"\\uD83Dx", b"\\uD83D\\u0041")
    yield from (b"\\x41", b"\\u", b"\\u12", b"\\u12G4", b"\\U0041", b"\\a", b"\\'", b"\\0", b"\\ ")
    yield from (b"\\u+123", b"\\u 123", b"\\u{41}", b"\\ud800\\", b"\\\n", b"\\\xc3\xa9")
    for code in (0, 1, 8, 9, 10, 13, 27, 31):
        yield bytes([code])
    # No UTF-8: lone, overlong, surrogates, beyond the last, cut.
    yield from (b"\xff", b"\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80")
    yield from (
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xfe\xff",
    )


def quoted(inner: bytes) -> bytes:
    return b'"' + inner + b'"'


def wholes() -> Iterator[bytes]:
    """Yield whole bodies around a right one."""
    right = b'{"model":"m","input":"x","messages":[{"role":"user","content":"x"}]}'
    yield from (b"", b" ", b"\x00", right + b"\x00", right + right, right + b",", b"," + right)
    yield from (right[:-1], right[1:], b"[" + right + b"]", right + b"\n\n", b"\t\r\n " + right)
    yield from (b"\xef\xbb\xbf" + right, b"\xef\xbb" + right, right + b"\xef\xbb\xbf")
    yield from (right.decode().encode(coding) for coding in ("utf-16", "utf-16-be", "utf-32"))
    yield from (b"\x0b" + right, b"\x0c" + right, b"\xc2\xa0" + right, b"\xe2\x81\xa0" + right)
    yield from (b"//\n" + right, b"/**/" + right, b"#\n" + right, b")]}',\n" + right, b"x=" + right)
    yield right.replace(b'"model"', b'"model":"nope","model"', 1)
    yield right.replace(b'"model"', b'"\\u006dodel"', 1)
    yield right.replace(b"{", b"{" + b"".join(b'"f%d":%d,' % (n, n) for n in range(20_000)), 1)
    yield right.replace(b"{", b"{" + b'"a":1,' * 20_000, 1)
    yield right.replace(b"{", b'{"' + b"k" * 500_000 + b'":1,', 1)
    yield right.replace(b'"m"', quoted(b"m" * 500_000), 1)


def is_json(body: bytes) -> bool:
    def refuse(_: str) -> None:
        raise ValueError

    try:
        json.loads(body.decode("utf-8"), parse_constant=refuse, parse_int=float)
        body.decode("utf-8").encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return True


ENDPOINTS = {
    "/v1/embeddings": (b'{"model":"m","input":%b}', b'{"model":"m","input":"x","e":%b}'),
    "/v1/chat/completions": (
        b'{"model":"c","messages":%b}',
        b'{"model":"c","messages":[{"role":"user","content":%b}]}',
        b'{"model":"c","messages":[{"role":"user","content":"x"}],"e":%b}',
        b'{"model":"c","messages":[{"role":"user","content":"x"}],"seed":%b}',
    ),
}


@pytest.fixture(scope="module")
def both(served_openai, module_gateway) -> Running:
    """A gateway with a model for either endpoint."""
    served_openai.forget()
    served_openai.width = 32
    chat = '[models.c]\nupstreams = ["fake"]\ntask = "chat"'
    return module_gateway(one_model(served_openai.base_url, model='task = "embedding"') + chat)


def judge(running: Running, path: str, body: bytes) -> int:
    began = time.monotonic()
    answer = post(running, body, path)
    assert time.monotonic() - began < QUICK, body[:80]
    assert answer.status_code in (200, 400, 404), (answer.status_code, body[:80], answer.text[:200])
    if answer.status_code != 200:
        said = error(answer)
        assert len(said["message"]) < 2000
    else:
        assert is_json(body), body[:80]
    return answer.status_code


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_value_in_every_place_is_a_request_or_a_400(both, path):
    """Nothing that is no JSON is ever taken for a request; nothing at all is an error of ours."""
    bodies = [shape % value for shape in ENDPOINTS[path] for value in values()]
    assert len(bodies) > 300
    taken = [judge(both, path, body) for body in bodies]
    assert taken.count(200) > 20


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_whole_body_is_a_request_or_an_error_of_the_clients(both, path):
    """Encodings, marks, comments, bodies in a row, and fields without number."""
    for body in wholes():
        judge(both, path, body)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    ("opening", "closing"),
    [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"), (b'{"a":[', b"]}"), (b"[[],", b"]")],
)
@pytest.mark.parametrize("closed", [True, False])
def test_no_depth_is_too_much_to_refuse(both, path, opening, closing, closed):
    """A hundred thousand levels, in every place, closed or not."""
    deep = opening * DEEP + b"1" + closing * (DEEP if closed else 0)
    for shape in (b"%b", *ENDPOINTS[path]):
        assert judge(both, path, shape % deep) == 400


def test_no_text_of_a_broken_body_is_in_its_error(both):
    """P8, P10: what could not be read is not repeated, nor logged."""
    for broken in (b'"canary \xff"', b'"canary', b'{"canary":}', b'["canary",]', b'"canary\\x"'):
        for path, shapes in ENDPOINTS.items():
            for shape in shapes:
                answer = post(both, shape % broken, path)
                assert answer.status_code == 400
                assert "canary" not in answer.text + both.log
