"""HTTP's words for a cache: what a request wants of it, and what an answer says of itself."""

import re
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.embedded import SOURCES, Embedded
from gateway.http_cache import cache_control, cache_told
from gateway.types import USUAL, CacheControl


def said(*values):
    """Return what these headers of one request say."""
    others = [(b"accept", b"no-store"), (b"x-cache-control", b"no-cache")]
    return cache_control([*others, *((b"cache-control", value.encode()) for value in values)])


# Cache-Control


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ([], USUAL),
        ([""], USUAL),
        (["no-cache"], CacheControl(no_cache=True)),
        (["no-store"], CacheControl(no_store=True)),
        (["only-if-cached"], CacheControl(only_if_cached=True)),
        (["max-age=60"], CacheControl(max_age=60)),
        (["max-age=0"], CacheControl(max_age=0)),
        (['max-age="60"'], CacheControl(max_age=60)),
        (["max-age=007"], CacheControl(max_age=7)),
        (["No-Cache, MAX-AGE=5"], CacheControl(no_cache=True, max_age=5)),
        (["no-cache,no-store"], CacheControl(no_cache=True, no_store=True)),
        ([" no-cache \t,\tmax-age=5 "], CacheControl(no_cache=True, max_age=5)),
        ([",, ,no-cache,,"], CacheControl(no_cache=True)),
        (["no-cache", "max-age=5"], CacheControl(no_cache=True, max_age=5)),
        (["no-store=x"], CacheControl(no_store=True)),
        (['no-cache="x"'], CacheControl(no_cache=True)),
        (['no-store = "a, b\\", only-if-cached"'], CacheControl(no_store=True)),
        (["no-store=, no-cache ="], CacheControl(no_store=True, no_cache=True)),
        (["max-age=60, max-age=5", "max-age=7"], CacheControl(max_age=5)),
        (["max-age=60, max-age=x"], CacheControl(max_age=60)),
        (["only-if-cached", "max-stale=3, min-fresh=1"], CacheControl(only_if_cached=True)),
    ],
)
def test_the_directives_that_mean_something_here(values, meant):
    """In one header or several, in any case, quoted or not (RFC 9111, 5.2)."""
    assert said(*values) == meant


@pytest.mark.parametrize(
    "value",
    [
        "public", "max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=x", "max-age=5x",
        "max-age = five", "max-stale", "no-transform", "no-cachex", "xno-cache", "no cache",
        "no-store2", "no_store", "=no-store", '"no-store"', 'ext="no-store"',
        'ext="a, no-store, b"', 'ext="a\\", no-store, b"', 'ext="no-cache', "max-age=5 no-store",
        "\0", "é", ";no-store", "no-store;", "\u00a0no-store", "max-age=²",
    ],
)  # fmt: skip
def test_what_means_nothing_here_is_ignored(value):
    """As RFC 9111 wants it of directives that a cache does not know; nothing fails."""
    assert said(value) is USUAL
    # A quote that is never closed goes on to the end of all headers.
    assert said(value, "no-cache").no_cache is (value != 'ext="no-cache')


@pytest.mark.parametrize("digits", [10, 17, 18, 19, 30, 4000])
def test_a_number_of_any_size_is_no_error(digits):
    """Older than the universe is as good as any age."""
    control = said("max-age=" + "9" * digits)
    assert control.max_age is None or control.max_age >= 10**9


tokens = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=8)
ours = {
    "no-cache": {"no_cache": True},
    "no-store": {"no_store": True},
    "only-if-cached": {"only_if_cached": True},
}
quoted = st.text('ab ,;=\\"\t', max_size=8).map(
    lambda text: '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
) | st.sampled_from(['"no-store"', '", no-store, "', '"\\", no-cache"'])
known = st.tuples(
    st.sampled_from(sorted(ours)), st.just("") | (tokens | quoted).map("={}".format)
).map(lambda parts: ("".join(parts), ours[parts[0]]))
ages = st.integers(0, 10**9).flatmap(
    lambda age: st.sampled_from(["max-age={}", 'max-age="{}"']).map(
        lambda form: (form.format(age), {"max_age": age})
    )
)
unknown = st.tuples(tokens, st.just("") | (tokens | quoted).map("={}".format)).map(
    lambda parts: ("x" + "".join(parts), {})
)


@given(
    directives=st.lists(known | ages | unknown, max_size=6),
    cuts=st.sets(st.integers(0, 6)),
    upper=st.booleans(),
    space=st.sampled_from(["", " ", "\t "]),
)
@example(directives=[('x="\\", no-cache"', {})], cuts=set(), upper=False, space="")
def test_any_list_of_directives_is_read_as_it_is_written(directives, cuts, upper, space):
    """However it is spread over headers; what is in quotes is one value. The least age counts."""
    headers = [[]]
    meant = {}
    for place, (text, means) in enumerate(directives):
        if place in cuts:
            headers.append([])
        headers[-1].append(space + (text.upper() if upper else text) + space)
        meant |= means
    ages = [means["max_age"] for _, means in directives if "max_age" in means]
    if ages:
        meant["max_age"] = min(ages)
    assert said(*map(",".join, headers)) == CacheControl(**meant)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=3))
def test_no_bytes_are_too_strange(values):
    """A header may hold anything but line ends; whatever it is, it is read."""
    control = cache_control([(b"cache-control", value) for value in values])
    assert isinstance(control, CacheControl)


@pytest.mark.parametrize(
    "piece",
    [
        "a", " ", "no-cache ", "no-store=", "no-store =,", '"', 'x="', 'no-cache="', "\\", ",",
        "max-age=1", '"\\', '\\"', "\t \t",
    ],
)  # fmt: skip
def test_no_header_takes_long_to_read(piece):
    """Time grows with its length alone: at a megabyte anything else would be a hang."""
    assert said("a" + piece * (1_000_000 // len(piece)) + "!") is not None


def test_a_request_that_says_nothing_is_the_usual_one():
    """It is told by identity: a hit asks no more than that."""
    assert said() is said("public") is cache_control([]) is USUAL


# Cache-Status


def parsed(value):
    """Read a structured field (RFC 8941): the token, and its parameters in their order."""
    name, rest = re.match(r"([A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*)(.*)$", value).groups()
    parameters = {}
    while rest:
        match = re.match(
            r"; *([a-z*][a-z0-9_.*-]*)"
            r"(?:=(?:\"((?:[ !#-\[\]-~]|\\[\"\\])*)\"|([A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*)))?",
            rest,
        )
        assert match, f"not a structured field: {rest}"
        key, string, token = match.groups()
        assert key not in parameters
        parameters[key] = string if string is not None else token or True
        rest = rest[match.end() :]
    return name, parameters


def told(age=None, **fields):
    """Return the headers of an answer with these sources, by name."""
    flags = {name: fields.pop(name) for name in ("stored", "forced", "unshared") if name in fields}
    sources = dict.fromkeys(SOURCES, 0) | {n.replace("_", "-"): c for n, c in fields.items()}
    answer = Embedded("m", [], 0, sources, age=age, **flags)
    return {name.decode(): value.decode() for name, value in cache_told(answer)[1]}


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"memory": 1}, 'gateway; hit; detail="memory=1"'),
        ({"memory": 3, "duplicate": 1}, 'gateway; hit; detail="memory=3, duplicate=1"'),
        ({"store": 2}, 'gateway; hit; detail="store=2"'),
        ({"upstream": 2, "stored": 2}, 'gateway; fwd=miss; stored; detail="upstream=2"'),
        ({"in_flight": 1}, 'gateway; fwd=miss; detail="in-flight=1"'),
        ({"memory": 97, "store": 2, "upstream": 1},
         'gateway; fwd=partial; detail="memory=97, store=2, upstream=1"'),
        ({"store": 1, "in_flight": 2}, 'gateway; fwd=partial; detail="store=1, in-flight=2"'),
        ({"upstream": 1, "forced": True}, 'gateway; fwd=request; detail="upstream=1"'),
        ({"memory": 1, "upstream": 1, "forced": True},
         'gateway; fwd=request; detail="memory=1, upstream=1"'),
        ({"upstream": 1, "stored": 1, "unshared": True},
         'gateway; fwd=miss; stored; detail="upstream=1, unshared"'),
        ({"memory": 1, "unshared": True}, 'gateway; hit; detail="memory=1, unshared"'),
    ],
)  # fmt: skip
def test_an_answer_says_where_its_vectors_came_from(fields, value):
    """Counts are of texts."""
    assert told(**fields)["cache-status"] == value


def test_every_combination_is_a_structured_field_that_says_what_happened():
    """RFC 9211: a hit only if nothing went out; `hit` or `fwd`, never both."""
    all_counts = product((0, 1, 12), repeat=len(SOURCES))
    flags = ((0, 2), (False, True), (False, True))
    for counts, (stored, forced, unshared) in product(all_counts, product(*flags)):
        if any(counts):
            check(dict(zip(SOURCES, counts, strict=True)), stored, forced, unshared)


def check(sources, stored, forced, unshared):
    fields = {name.replace("-", "_"): count for name, count in sources.items()}
    headers = told(**fields, stored=stored, forced=forced, unshared=unshared)
    name, says = parsed(headers["cache-status"])
    assert name == "gateway"
    out = sources["upstream"] + sources["in-flight"] > 0
    kept = sources["memory"] + sources["store"] > 0
    assert says.pop("hit", False) is not out
    expected = "request" if forced else "partial" if kept else "miss"
    assert says.pop("fwd", None) == (expected if out else None)
    assert says.pop("stored", False) == (stored > 0)
    figures = says.pop("detail").split(", ")
    assert ("unshared" in figures) is unshared
    assert [figure.split("=") for figure in figures if figure != "unshared"] == [
        [source, str(count)] for source, count in sources.items() if count
    ]
    assert not says


@pytest.mark.parametrize(
    ("age", "value"),
    [(None, None), (0.0, "0"), (0.99, "0"), (61.7, "61"), (-5.0, "0"), (3e9, "3000000000")],
)  # fmt: skip
def test_an_age_is_told_in_whole_seconds_where_something_was_kept(age, value):
    """Never below zero, whatever became of the clock (RFC 9111, 5.1)."""
    assert told(memory=1, age=age).get("age") == value
