"""What is tallied is what prometheus-client would have counted one by one."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.metrics.tally import SECONDS, BulkHistogram, Tally

LABELS = st.sampled_from([("a", "x"), ("a", "y"), ("b", "x")])
TIMES = st.one_of(st.sampled_from(SECONDS), st.floats(0, 100))
DONE = st.one_of(
    st.tuples(st.just("add"), LABELS, st.integers(0, 5)),
    st.tuples(st.just("observe"), LABELS, TIMES),
    st.just(("flush", None, None)),
)


def samples(registry):
    """Return every sample but the times at which series began."""
    return {
        (s.name, *sorted(s.labels.items())): s.value
        for family in registry.collect()
        for s in family.samples
        if not s.name.endswith("_created")
    }


@given(st.lists(DONE, max_size=60))
def test_in_bulk_is_as_one_by_one(done):
    """Any order of counting and reading; values on the bounds of buckets too."""
    bulk, single = CollectorRegistry(), CollectorRegistry()
    tally = Tally()
    counters = [Counter("c", "h", ["l", "m"], registry=r) for r in (bulk, single)]
    ours = BulkHistogram("h", "h", ["l", "m"], buckets=SECONDS, registry=bulk)
    theirs = Histogram("h", "h", ["l", "m"], buckets=SECONDS, registry=single)
    for what, labels, amount in [*done, ("flush", None, None)]:
        if what == "add":
            tally.add(counters[0], labels, amount)
            counters[1].labels(*labels).inc(amount)
        elif what == "observe":
            tally.observe(ours, labels, amount)
            theirs.labels(*labels).observe(amount)
        else:
            tally.flush()
    told, expected = samples(bulk), samples(single)
    sums = {key for key in told if key[0] == "h_sum"}
    assert told.keys() == expected.keys()
    assert {k: v for k, v in told.items() if k not in sums} == {
        k: v for k, v in expected.items() if k not in sums
    }
    assert all(abs(told[key] - expected[key]) < 1e-9 * (1 + expected[key]) for key in sums)


def test_without_labels():
    """The event loop's lag has none."""
    registry = CollectorRegistry()
    tally = Tally()
    lag = BulkHistogram("lag", "h", buckets=(1.0, 2.0), registry=registry)
    ticks = Counter("ticks", "h", registry=registry)
    for _ in range(2):
        tally.observe(lag, (), 1.5)
        tally.add(ticks, ())
        tally.flush()
    assert registry.get_sample_value("lag_bucket", {"le": "1.0"}) == 0
    assert registry.get_sample_value("lag_bucket", {"le": "2.0"}) == 2
    assert registry.get_sample_value("lag_sum") == 3
    assert registry.get_sample_value("ticks_total") == 2
