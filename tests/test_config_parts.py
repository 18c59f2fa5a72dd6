"""The config's small machines: line numbers, patterns, durations and sizes, addresses."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.config import host_and_port, is_loopback
from gateway.config.forms import DURATION, SIZE, Surroundings
from gateway.config.locate import locate
from gateway.config.patterns import literal_length, overlap
from gateway.config.problems import MisfitError, line_of

HERE = Surroundings(Path("/here"))

# Line numbers. In these texts every number is the line that it, or its key, stands in.

NUMBERED = '''\
a = 1
"b c" = 2  # [not.a.table] = 99
'd"=e' = 3
f.g."h.i" = 4
text = """
[fake]
a = 99 \\""" # no end
j = 99"""
[k]
l = 10
list = [11, 11, # ] = 99
  12,
    [13, { m = 13, "n" = 13 }],
  "]", 14, \'\'\'
x = 99\'\'\', 15,
]
inline = { o.p = 17, q = { r = 17 }, s = [ 17 ] }
 [ t . "u" ]
  v=19
[[w]]
x = 21
[[w]]
x = 23
[w.y]
z = 25
[[w.deep]]
a = 27
[[w.deep]]
a = 29
[a1]
date = 1979-05-27T07:32:00Z
float = 3.14
empty = ""
b1 = 34
"\\u0063\\"1" = 35
'''


def numbers_in(value, path=()):
    """Yield each whole number in a value read from TOML, and where it is."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers_in(item, (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from numbers_in(item, (*path, place))
    elif isinstance(value, int):
        yield path, value


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_each_value_is_found_in_its_line(ending):
    """Keys and list items are found whatever way TOML lets one write them."""
    text = NUMBERED.replace("\n", ending)
    lines = locate(text)
    numbers = dict(numbers_in(tomllib.loads(text)))
    assert len(numbers) == 24
    assert numbers == {path: lines.get(path) for path in numbers}


def test_tables_are_found_in_their_headers():
    """A table stands where it is first named, also where only a deeper one is."""
    lines = locate("\n[a.b]\n[c]\n[[d]]\n[[d]]\n")
    assert lines == {("a",): 2, ("a", "b"): 2, ("c",): 3, ("d",): 4, ("d", 0): 4, ("d", 1): 5}


def test_what_is_not_there_has_the_line_of_its_table():
    """A missing option is reported where its table begins, and at no line without one."""
    lines = locate("\n[a]\n[b]\n")
    assert (3, None) == (line_of(("b", "missing"), lines), line_of(("c", "missing"), lines))


keys = st.text("ab.-_\" '=[#é", min_size=1, max_size=4)
strings = st.sampled_from(['"""\n[x]\ny = 99\n"""', "'''\n# ] = 99\n'''", '"# ["', "'='", "1.5"])


@st.composite
def documents(draw):
    """A TOML text of tables and lists in which each number is the line that it stands in."""
    lines = []

    def put(text):
        lines.extend(text.split("\n"))

    for name in draw(st.lists(keys, max_size=3, unique=True)):
        put(draw(st.sampled_from(["", "# [a] = 99"])))
        put(f"[{_quoted(name)}]")
        for key in draw(st.lists(keys, max_size=3, unique=True)):
            at = len(lines) + 1
            value = draw(st.sampled_from(["number", "text", "list", "table"]))
            if value == "number":
                put(f"{_quoted(key)} = {at} # [b] = 99")
            elif value == "text":
                put(f"{_quoted(key)} = {draw(strings)}")
            elif value == "table":
                put(f"{_quoted(key)} = {{ {_quoted(name)}.c = {at}, d = [{at}, {at}] }}")
            else:
                put(f"{_quoted(key)} = [{at}, {draw(strings)}, # ]")
                put(f"  [{len(lines) + 1}],\n]")
    return "\n".join(lines)


def _quoted(key):
    return '"' + key.replace('"', '\\"') + '"'


@settings(max_examples=200)
@given(documents())
def test_lines_are_right_in_any_document(text):
    """Whatever stands around it, a number's line is the one it was written in."""
    lines = locate(text)
    numbers = dict(numbers_in(tomllib.loads(text)))
    assert numbers == {path: lines.get(path) for path in numbers}


@settings(max_examples=300)
@given(st.text("ab[]{}=,.\"'#\n\\ 1", max_size=40))
@example("a = [}")
@example("a = {]")
@example("[[a")
@example('"\\q" = 1')
@example("a = " + "[" * 5_000)
def test_locating_never_fails(text):
    """Text that is no TOML gives the lines of what was understood, never an error or no end."""
    lines = locate(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


# Patterns


def strings_of(pattern, letters, longest):
    """Return every text of these letters, up to a length, that fits the pattern."""
    if not pattern:
        return {""}
    rest = strings_of(pattern[1:], letters, longest)
    if pattern[0] != "*":
        return {pattern[0] + text for text in rest if len(text) < longest}
    runs = [""]
    for run in runs:
        runs.extend(run + letter for letter in letters if len(run) < longest)
    return {run + text for run in runs for text in rest if len(run + text) <= longest}


@settings(max_examples=300)
@given(st.text("ab*", max_size=4), st.text("ab*", max_size=4))
def test_patterns_overlap_where_a_name_fits_both(one, other):
    """Two patterns are said to overlap exactly if some name fits both."""
    # A shortest common name is no longer than what is fixed in both patterns together.
    longest = literal_length(one) + literal_length(other)
    both = strings_of(one, "ab", longest) & strings_of(other, "ab", longest)
    assert bool(both) == overlap(one, other) == overlap(other, one)


# Durations and sizes


DURATIONS = {"500ms": 0.5, "10s": 10.0, "5m": 300.0, "1h": 3600.0, "2d": 172_800.0}
DURATIONS |= {"1.5h": 5400.0, " 3 s ": 3.0, 90: 90.0, 0.25: 0.25}


@pytest.mark.parametrize(("written", "seconds"), DURATIONS.items())
def test_durations_are_seconds(written, seconds):
    """A duration is a number with a unit, or a number of seconds."""
    assert seconds == DURATION.read(written, HERE)


SIZES = {"256MiB": 2**28, "1GB": 10**9, "64kB": 64_000, "64KiB": 65_536, "0": 0, 7: 7}
SIZES |= {"1.5GiB": 3 * 2**29, "2 TiB": 2**41, "12b": 12, "1tb": 10**12}


@pytest.mark.parametrize(("written", "size"), SIZES.items())
def test_sizes_are_bytes(written, size):
    """A size is a number with a unit of 1000 or 1024, or a number of bytes."""
    assert size == SIZE.read(written, HERE)


@pytest.mark.parametrize("wrong", ["1", "-1s", "1 week", "s", "", True, [], "1e3s", float("nan")])
def test_what_is_no_duration_is_refused(wrong):
    """A text without a unit is no duration: nobody could know which unit was meant."""
    with pytest.raises(MisfitError, match="must be a duration"):
        DURATION.read(wrong, HERE)


@pytest.mark.parametrize("wrong", ["1i", "1ib", "-1", "MiB", "", True, 2**63, "9" * 18 + "TiB"])
def test_what_is_no_size_is_refused(wrong):
    """Negative, unknown and impossible sizes are refused."""
    with pytest.raises(MisfitError, match="must be a size"):
        SIZE.read(wrong, HERE)


@given(st.floats(0.001, 3e7) | st.integers(1, 10**7).map(float))
@example(0.1)
@example(60.0)
def test_a_duration_is_read_as_it_is_written(seconds):
    """What `show` writes for a duration is the same duration again."""
    assert seconds == DURATION.read(DURATION.write(seconds), HERE)


@given(st.integers(0, 2**63 - 1) | st.integers(0, 2**20).map(lambda n: n * 2**20))
def test_a_size_is_read_as_it_is_written(size):
    """What `show` writes for a size is the same size again."""
    assert size == SIZE.read(SIZE.write(size), HERE)


# Addresses


LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LocalHost"]
REACHABLE = ["0.0.0.0", "::", "10.0.0.1", "example.com"]


@pytest.mark.parametrize("host", [*LOOPBACK, *REACHABLE])
def test_loopback_is_this_machine_only(host):
    """Only addresses that no other machine can reach count as loopback."""
    assert (host in LOOPBACK) == is_loopback(host)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:9090", ("127.0.0.1", 9090)),
        ("[::1]:0", ("::1", 0)),
        ("a.b:65535", ("a.b", 65535)),
    ],
)
def test_an_address_has_a_host_and_a_port(address, parts):
    """IPv6 addresses stand in brackets, as in a URL."""
    assert parts == host_and_port(address)


@pytest.mark.parametrize(
    "wrong", ["9090", "::1:9090", "a:65536", "a:", ":1", "http://a:1", "a b:1"]
)
def test_what_is_no_address_is_refused(wrong):
    """Neither half may be left out."""
    with pytest.raises(MisfitError, match="must be an address and port"):
        host_and_port(wrong)
