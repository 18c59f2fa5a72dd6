"""Requests that are none, or that two servers might read in two ways: the families of HTTP Garden.

Made by rule, so that a family is all of its kind. Wherever a second request is hidden in what may
be a body, its path says so, and nothing may ever answer to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: hidden\r\n\r\n"
GOOD = b'{"model":"m","input":"x"}'
_POST = b"POST /v1/embeddings HTTP/1.1\r\n"
_GET = b"GET /v1/models HTTP/1.1\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes, and what may become of them."""

    family: str
    raw: bytes
    answers: int = 1
    """Requests that there are in them."""
    refused: bool = False
    """Whether the connection has to end with an error of the client's."""
    head: bool = False
    """Whether the first answer has no body."""
    hidden: bool = False
    """Whether what is called hidden is a request in its own right here."""


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for family in (
        _two_lengths,
        _lengths,
        _codings,
        _chunks,
        _line_ends,
        _folds,
        _controls,
        _names,
        _hosts,
        _targets,
        _methods,
        _versions,
        _strangers,
        _pipelines,
        _sizes,
    ):
        yield from family()


def post(fields: bytes, body: bytes) -> bytes:
    """Return a POST of embeddings with these header fields, each with its line end."""
    return _POST + b"host: x\r\n" + fields + b"\r\n" + body


def get(target: bytes, fields: bytes = b"host: x\r\n") -> bytes:
    """Return a GET of a target."""
    return b"GET " + target + b" HTTP/1.1\r\n" + fields + b"\r\n"


def _two_lengths() -> Iterator[Case]:
    body = b"0\r\n\r\n" + HIDDEN
    lengths = [b"content-length: %d\r\n" % n for n in (0, 3, 5, len(body))]
    for length in lengths:
        for coding in (b"transfer-encoding: chunked\r\n", b"Transfer-Encoding: Chunked\r\n"):
            yield Case("length and coding", post(length + coding, body), refused=True)
            yield Case("length and coding", post(coding + length, body), refused=True)
    for one in lengths:
        for other in lengths:
            raw = post(one + other, body)
            yield Case("two lengths", raw, refused=True)
    for both in (b"5, 5", b"5,5", b"5,0", b"0, 5", b"5 5", b"5,"):
        yield Case("two lengths", post(b"content-length: %b\r\n" % both, body), refused=True)


def _lengths() -> Iterator[Case]:
    wrong = b"+25 -25 -0 0x19 19h 2_5 25. 25; 2.5e1 1e1 x \"25\" '25' 25a a25 % 25\x00 \xb25 25\x0b"
    huge = [b"9" * 19, b"9" * 20, b"18446744073709551641", b"1" + b"0" * 60, b"9" * 4000]
    for value in [*wrong.split(b" "), b"", b"2 5", b"\x0c25", *huge[1:]]:
        raw = post(b"content-length: %b\r\n" % value, GOOD + HIDDEN)
        yield Case("length", raw, refused=True)
    # Announced too large: answered at once, and not read on for ever.
    yield Case("length", post(b"content-length: %b\r\n" % huge[0], GOOD))
    for value in (b"25", b"025", b"0" * 30 + b"25", b"  25", b"25  ", b"\t25\t"):
        yield Case("length", post(b"content-length: %b\r\n" % value, GOOD))
    yield Case("length", post(b"content-length: 24\r\n", GOOD), refused=True, answers=2)


def _codings() -> Iterator[Case]:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    for value in (b"chunked", b"Chunked", b"CHUNKED", b" \tchunked", b"chunked \t"):
        yield Case("coding", post(b"transfer-encoding:%b\r\n" % value, body))
    wrong = (
        b"xchunked|chunkedx|chunk|chunked, chunked|chunked,chunked|chunked, identity|identity"
        b"|identity, chunked|gzip|gzip, chunked|deflate, chunked|chunked;q=1|chunked; a=b"
        b"|\"chunked\"|'chunked'|chunked,|,chunked|chunked\x00|\x00chunked|\x0bchunked|chunked\x0b"
        b"|\x0cchunked|chun ked|chun\tked|cow|cow, chunked|\xa0chunked|chunked\xa0|\xffchunked"
        b"|chunked\r\n |\r\n chunked|\r\n\tchunked|c\r\n hunked|"
    )
    for value in wrong.split(b"|"):
        raw = post(b"transfer-encoding: %b\r\n" % value, b"0\r\n\r\n" + HIDDEN)
        yield Case("coding", raw, refused=True)
    for name in (b"transfer-encoding ", b" transfer-encoding", b"transfer-encoding\t", b"\x0bte"):
        raw = post(name + b": chunked\r\n", b"0\r\n\r\n" + HIDDEN)
        yield Case("coding", raw, refused=True)
    for second in (b"chunked", b"identity", b"x"):
        fields = b"transfer-encoding: chunked\r\ntransfer-encoding: %b\r\n" % second
        yield Case("coding", post(fields, b"0\r\n\r\n" + HIDDEN), refused=True)
    old = post(b"transfer-encoding: chunked\r\n", b"0\r\n\r\n" + HIDDEN)
    yield Case("coding", old.replace(b"HTTP/1.1", b"HTTP/1.0", 1), refused=True)
    # These are other names: there is no body, and what follows is no request.
    for name in (b"transfer_encoding", b"transfer.encoding", b"x-transfer-encoding"):
        raw = post(name + b": chunked\r\n", b"0\r\n\r\n" + HIDDEN)
        yield Case("coding", raw, refused=True, answers=2)


def _chunks() -> Iterator[Case]:
    coded = b"transfer-encoding: chunked\r\n"
    size = b"%x" % len(GOOD)
    right = [size, size.upper(), b"0" * 12 + size, size + b";a", size + b";a=b", size + b';a="b c"']
    for written in right:
        yield Case("chunk", post(coded, b"%b\r\n%b\r\n0\r\n\r\n" % (written, GOOD)))
    wrong = [b"0x", b"+", b"-", b" ", b"\t", b"\x00", b"\x0b", b"_", b"'", b"g", b"\xff"]
    ends = [b" ", b"\t", b"\x00", b"\x0b", b"h", b"_0", b".", b",", b";\x00", b";\x0b", b"; \x7f"]
    sizes = [*(first + size for first in wrong), *(size + last for last in ends)]
    sizes += [b"", b"f" * 16, b"f" * 17, b"1" + b"0" * 16, b"8" + b"0" * 15, b"0" * 16 + b"f" * 17]
    for written in sizes:
        raw = post(coded, b"%b\r\n%b\r\n0\r\n\r\n%b" % (written, GOOD, HIDDEN))
        yield Case("chunk", raw, refused=True)
    frames = [
        b"19\n%b\r\n0\r\n\r\n",
        b"19\r%b\r\n0\r\n\r\n",
        b"19\r\n%b\n0\r\n\r\n",
        b"19\r\n%b\r0\r\n\r\n",
        b"19\r\n%b0\r\n\r\n",
        b"19\r\n%bx\r\n0\r\n\r\n",
        b"18\r\n%b\r\n0\r\n\r\n",
        b"1a\r\n%b\r\n0\r\n\r\n",
        b"19\r\n%b\r\n0\n\n",
        b"19\r\n%b\r\n0\r\n\n",
        b"19\r\n%b\r\n0\r\r\n",
        b"19\r\n%b\r\n0\r\nx\r\n\r\n",
        b"19\r\n%b\r\n0\r\n x: y\r\n\r\n",
        b"19\r\n%b\r\n0\r\nx : y\r\n\r\n",
        b"19\r\n%b\r\n0\r\nx: y\n\r\n",
        b"19;a\n%b\r\n0\r\n\r\n",
        b"19;a\rb\r\n%b\r\n0\r\n\r\n",
        b'19;a="b\r\nc"\r\n%b\r\n0\r\n\r\n',
    ]
    for frame in frames:
        yield Case("chunk", post(coded, frame % GOOD + HIDDEN), refused=True)
    # Fields behind a body are read past, and never become the request's.
    for field in (b"x: y", b"authorization: Bearer other", b"host: other", b"content-length: 9"):
        raw = post(coded, b"19\r\n%b\r\n0\r\n%b\r\n\r\n" % (GOOD, field))
        yield Case("trailer", raw)


def _line_ends() -> Iterator[Case]:
    request = _GET + b"host: x\r\naccept: */*\r\n\r\n"
    places = [at for at in range(len(request)) if request.startswith(b"\r\n", at)]
    for at in places:
        for end in (b"\n", b"\r", b"\n\r", b"\r\r\n"):
            raw = request[:at] + end + request[at + 2 :] + HIDDEN
            yield Case("line end", raw, refused=True)
    yield Case("line end", request.replace(b"\r\n", b"\n") + HIDDEN, refused=True)
    yield Case("line end", request.replace(b"\r\n", b"\r") + HIDDEN, refused=True)
    yield Case("line end", b"\r\n" + request)
    yield Case("line end", b"\r\n\r\n" + request)


def _folds() -> Iterator[Case]:
    for blank in (b" ", b"\t", b"  ", b" \t"):
        yield Case("fold", get(b"/", b"host: x\r\nx-a: b\r\n%bc\r\n" % blank), refused=True)
        yield Case("fold", get(b"/", b"%bhost: x\r\n" % blank), refused=True)
        yield Case("fold", get(b"/", b"host:\r\n%bx\r\n" % blank), refused=True)
        raw = post(b"content-length: 2\r\n%b5\r\n" % blank, GOOD + HIDDEN)
        yield Case("fold", raw, refused=True)


def _controls() -> Iterator[Case]:
    for code in [*range(9), *range(10, 32), 127]:
        byte = bytes([code])
        yield Case("control", get(b"/", b"host: x\r\nx-a: b%bc\r\n" % byte), refused=True)
        yield Case("control", get(b"/", b"host: x\r\nx-%ba: b\r\n" % byte), refused=True)
    for code in (0, 10, 13):
        yield Case("control", get(b"/v1/%bmodels" % bytes([code])), refused=True)


def _names() -> Iterator[Case]:
    for letter in b'()<>@,;\\"/[]?={} \x80\xff':
        yield Case("name", get(b"/", b"host: x\r\nx%ba: b\r\n" % bytes([letter])), refused=True)
    for line in (b": a", b"nothing", b"x", b" : a", b"x : a", b"x\t: a", b"host : x", b":"):
        yield Case("name", get(b"/", b"host: x\r\n%b\r\n" % line), refused=True)
    for line in (b"x:", b"x:a", b"x: a ", b"x:\ta", b"x: \x80\xff", b"X!#$%&'*+-.^_`|~9: a"):
        yield Case("name", get(b"/v1/models", b"host: x\r\n%b\r\n" % line))


def _hosts() -> Iterator[Case]:
    good = b"x|x:80|X.Y:1|localhost|127.0.0.1:8000|[::1]|[::1]:8000|a_b.c-d|~x"
    for host in good.split(b"|"):
        yield Case("host", get(b"/v1/models", b"host: %b\r\n" % host))
    wrong = (
        b"x y|a@b|a:b@c|x/y|x:y|x:|:80|x:999999|x:80:80|[|]|[]|[::1|::1|[x]|[::1]x|x,y|x, y|x;y"
        b'|x#y|x?y|x\\y|"x"|<x>|http://x|x%00|x%2e|\xe9|\xff|x\ty|'
    )
    for host in wrong.split(b"|"):
        yield Case("host", get(b"/v1/models", b"host: %b\r\n" % host), refused=True)
    for fields in (b"", b"host: x\r\nhost: x\r\n", b"host: x\r\nHost: y\r\n", b"hosts: x\r\n"):
        yield Case("host", get(b"/v1/models", fields), refused=True)
    yield Case("host", b"GET /v1/models HTTP/1.0\r\n\r\n")
    twice = b"GET /v1/models HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n"
    yield Case("host", twice, refused=True)


def _targets() -> Iterator[Case]:
    for target in (
        b"http://x/v1/models",
        b"HTTP://X/v1/models",
        b"https://x/v1/models",
        b"http://x",
    ):
        yield Case("target", get(target))
    wrong = (
        b"http://y/v1/models|http://x@y/v1/models|http://y@x/v1/models|http:///v1/models|http:x"
        b"|ftp://x/v1/models|x:443|x|*|v1/models|?a|\\v1\\models|http://|x/v1/models|./v1/models"
        b"|/v1/mod els|/\xe9|/v1/models\xff"
    )
    for target in wrong.split(b"|"):
        yield Case("target", get(target), refused=True)
    odd = (
        b"/|//|//v1/models|//y/v1/models|/v1//models|/v1/models/|/v1/models;a|/;/v1/models"
        b"|/v1/./models|/v1/../metrics|/../metrics|/v1/%2e%2e/metrics|/%2e%2e/metrics|/..%2fmetrics"
        b"|/v1\\models|/%|/%zz|/%0|/%00|/v1/models%00|/v1/models%0d%0a|/%c0%ae|/%ff|/v1/%6dodels"
        b"|/v1/models?|/v1/models?a=b?c|/v1/models?%zz|/v1/models#a|/{}|/<script>|/v1/models/*"
        b"|/http://y/|/" + b"a/" * 3000
    )
    for target in odd.split(b"|"):
        yield Case("target", get(target))


def _methods() -> Iterator[Case]:
    for method in b"OPTIONS PUT PATCH DELETE PURGE PROPFIND SEARCH M-SEARCH LINK REPORT".split():
        yield Case("method", _GET.replace(b"GET", method) + b"host: x\r\n\r\n")
    yield Case("method", _GET.replace(b"GET", b"HEAD") + b"host: x\r\n\r\n", head=True)
    wrong = b"get Get GE GETT XGET G\x00ET \x00GET G(ET \x80GET PRI"
    for method in [*wrong.split(b" "), b"", b"A" * 300, b"GE\tT", b"GE T", b"\x0bGET", b"\tGET"]:
        raw = _GET.replace(b"GET", method) + b"host: x\r\n\r\n" + HIDDEN
        yield Case("method", raw, refused=True)
    # A tunnel is no wish that is granted, and what is sent into it no request.
    for target in (b"x:443", b"/v1/models"):
        raw = b"CONNECT %b HTTP/1.1\r\nhost: x:443\r\n\r\n" % target + HIDDEN
        yield Case("method", raw, refused=True)
    for blank in (b"\t", b"\x0b", b""):
        raw = b"GET%b/v1/models HTTP/1.1\r\nhost: x\r\n\r\n" % blank
        yield Case("method", raw, refused=True)
    # RFC 9112, 3 lets a server be lenient here, and the parser is.
    yield Case("method", b"GET   /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")


def _versions() -> Iterator[Case]:
    wrong = (
        b"HTTP/0.9|HTTP/1.2|HTTP/1.9|HTTP/2.0|HTTP/2|HTTP/3.0|HTTP/1|HTTP/11|HTTP/1.10|HTTP/01.1"
        b"|HTTP/1.1.1|HTTP/1,1|HTTP/-1.1|HTTP/ 1.1|HTTP /1.1|http/1.1|HTTPS/1.1|ICE/1.0"
        b"|HTTP/1.1 x|HTTP/1.\xb9|HTTP/1.1\x00|HTTP|x|HTTP/9.9|HTTP/A.B"
    )
    for version in wrong.split(b"|"):
        raw = b"GET /v1/models %b\r\nhost: x\r\n\r\n" % version + HIDDEN
        yield Case("version", raw, refused=True)
    yield Case("version", b"GET /v1/models\r\n\r\n" + HIDDEN, refused=True)
    # To the parser RTSP is another name of HTTP; the answer is the connection's last one.
    for version in (b"HTTP/1.0", b"RTSP/1.0"):
        yield Case("version", b"GET /v1/models %b\r\nhost: x\r\n\r\n" % version + HIDDEN)


def _strangers() -> Iterator[Case]:
    for raw in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get(b"/hidden"),
        b"\r\n\r\n\x00\r\n\r\nQUIT\n",
        b"\x05\x01\x00",
        b"*1\r\n$4\r\nPING\r\n",
        b"HELO x\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"\xef\xbb\xbf" + get(b"/hidden"),
        b"\x00" * 100,
        b"{}\r\n\r\n",
        bytes(range(256)),
    ):
        yield Case("stranger", raw, refused=True)


def _pipelines() -> Iterator[Case]:
    length = b"content-length: %d\r\n"
    good = post(length % len(GOOD), GOOD)
    yield Case("pipeline", _GET + b"host: x\r\n\r\n" + _GET + b"host: y\r\n\r\n", answers=2)
    yield Case("pipeline", good * 3, answers=3)
    yield Case("pipeline", good + HIDDEN, answers=2, hidden=True)
    inside = length % len(HIDDEN)
    for method in (b"GET", b"POST", b"PUT", b"OPTIONS", b"DELETE"):
        for path in (b"/v1/models", b"/v1/embeddings", b"/nothing"):
            head = b"%b %b HTTP/1.1\r\nhost: x\r\n" % (method, path)
            yield Case("body", head + inside + b"\r\n" + HIDDEN)
            chunked = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            yield Case("body", head + chunked % (len(HIDDEN), HIDDEN))
    head = b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\n" + inside + b"\r\n"
    yield Case("body", head + HIDDEN, head=True)
    for field in (b"content-type: text/plain", b"content-encoding: gzip", b"expect: 100-continue"):
        yield Case("body", post(inside + field + b"\r\n", HIDDEN))
    for field in (b"expect: x", b"expect: 100-continue, x", b"upgrade: h2c\r\nconnection: upgrade"):
        yield Case("body", post(inside + field + b"\r\n", HIDDEN))
    closing = post(b"connection: close\r\n" + length % len(GOOD), GOOD)
    yield Case("last", closing + HIDDEN)
    yield Case("last", closing + good)
    websocket = b"host: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    yield Case("last", get(b"/v1/models", websocket))


def _sizes() -> Iterator[Case]:
    yield Case(
        "size", get(b"/v1/models", b"host: x\r\nx: " + b"a" * 40_000 + b"\r\n"), refused=True
    )
    yield Case("size", get(b"/v1/models", b"host: x\r\n" + b"x: a\r\n" * 101), refused=True)
    yield Case("size", get(b"/" + b"a" * 40_000), refused=True)
    yield Case("size", get(b"/", b"host: x\r\n" + b"x" * 40_000 + b": a\r\n"), refused=True)
    yield Case("size", get(b"/", b"host: x\r\nx: " + b"a" * 300_000), refused=True)
    yield Case("size", b"A" * 100_000, refused=True)
    yield Case("size", b"\r\n" * 50_000 + b"A", refused=True)
    yield Case("size", get(b"/v1/models", b"host: x\r\n" + b"x: a\r\n" * 98))
    yield Case("size", get(b"/v1/models", b"host: x\r\nx: " + b"a" * 30_000 + b"\r\n"))
    coded = b"transfer-encoding: chunked\r\n"
    yield Case("size", post(coded, b"19;" + b"a" * 100_000), refused=True)
    yield Case("size", post(coded, b"0\r\nx: " + b"a" * 100_000), refused=True)
    yield Case("size", post(coded, b"0\r\n" + b"x: a\r\n" * 20_000), refused=True)
