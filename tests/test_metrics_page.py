"""The text of /metrics is what prometheus-client would write, for one process and for several."""

import os

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, values
from prometheus_client.core import CounterMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from gateway.cache.facts import Checked
from gateway.edge.paths import OPERATIONS
from gateway.embedded import SOURCES
from gateway.metrics.collectors import Metrics
from gateway.metrics.page import Page
from gateway.metrics.tally import BulkHistogram
from gateway.types import Asked, RawEmbeddings, Spared
from tests.scraping import series

NAMES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n{},='), min_size=1, max_size=6
)
MODES = ("livesum", "livemax", "livemin", "livemostrecent")
DOINGS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["count", "time", *MODES]),
        NAMES,
        st.integers(0, 70),
    ),
    max_size=25,
)


class Told(Collector):
    """Says the same in every worker, of a counter that workers count too."""

    def collect(self):
        yield CounterMetricFamily("told", "Told.", value=7)
        more = CounterMetricFamily("counted", "Counted.", labels=["model"])
        more.add_metric(["there"], 3)
        yield more


class Process:
    """The collectors of one process."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.told = Told()
        self.counter = Counter("counted", "Counted.", ["model"], registry=self.registry)
        self.times = BulkHistogram(
            "timed", 'Timed.\nIn "seconds" \\ s.', ["model", "zone"],
            buckets=(1.0, 30.0), registry=self.registry,
        )  # fmt: skip
        self.gauges = {
            mode: Gauge(mode, "Set.", ["model"], registry=self.registry, multiprocess_mode=mode)
            for mode in MODES
        }

    def do(self, what, name, number):
        """Count, time or set something."""
        if what == "count":
            self.counter.labels(name).inc(number)
        elif what == "time":
            self.times.labels(name, "z").observe(number)
        else:
            self.gauges[what].labels(name).set(number)


def written(pieces):
    """Return a text that came in pieces."""
    return b"".join(pieces).decode()


def without_created(text):
    """Return the samples but for the times at which series began."""
    return {key: v for key, v in series(text).items() if not key[0].endswith("_created")}


def used(models):
    """Return metrics of so many models, each at an upstream of its own, with all their labels."""
    metrics = Metrics(CollectorRegistry(), str)
    metrics.requests.know(OPERATIONS)
    for number in range(models):
        model, upstream = f"text-embedding-model-{number}", f"upstream-{number}"
        metrics.vectors.know([upstream])
        metrics.vectors.sent(RawEmbeddings([np.ones(3, np.float32)], [1], True, upstream=upstream))
        for outcome in ("ok", "4xx", "429", "5xx", "timeout", "connect"):
            metrics.upstreams.called(upstream, outcome)
            metrics.upstreams.took(upstream, 0.1)
        spared = Spared(dict.fromkeys(SOURCES, 1), 100, 0.02)
        for cache in ("hit", "partial", "miss", "bypass", ""):
            for status in (200, 400, 429, 502):
                asked = Asked("embeddings", model, status, 1.0, cache, 0.001, spared)
                metrics.requests.ended(asked)
        metrics.drift.checked(model, "steady")
        metrics.drift.stand({model: Checked(1.0, "steady", 0.0, 0.0)})
    return metrics


def test_many_models_are_no_megabyte_and_come_in_small_pieces():
    """50 of them, with every label they use; requests come in between the pieces."""
    pieces = list(used(50).page(None))
    page = b"".join(pieces)
    assert page.count(b"\n") > 7000
    assert len(page) < 1_000_000
    assert max(piece.count(b"\n") for piece in pieces) < 1200
    assert len(pieces) > 20


@given(doings=DOINGS)
def test_one_process_is_told_as_by_the_library(doings):
    """Whatever the labels hold: quotes, backslashes, line ends."""
    process = Process()
    for _, what, name, number in doings:
        process.do(what, name, number)
    page = Page(process.registry, ())
    expected = without_created(generate_latest(process.registry).decode())
    for _ in range(2):  # the second time lines are remembered
        assert series(written(page.of_one())) == expected


@given(doings=DOINGS, dead=st.integers(0, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_several_processes_are_told_as_by_the_library(tmp_path_factory, doings, dead):
    """Sums, the largest, the least and the newest; of one that is dead what it has counted."""
    directory = tmp_path_factory.mktemp("metrics")
    with slots(directory) as slot:
        processes = [slot(number) for number in range(3)]
        page = Page(processes[0].registry, [processes[0].told])
        for who, what, name, number in doings:
            processes[who].do(what, name, number)
            b"".join(page.of_all(directory))
        if dead < 3:
            mark_process_dead(f"worker{dead}", str(directory))
        together = CollectorRegistry()
        MultiProcessCollector(together, path=str(directory))
        expected = without_created(generate_latest(together).decode())
        there = ("counted_total", frozenset({("model", "there")}))
        expected |= {("told_total", frozenset()): 7.0, there: 3.0}
        assert series(written(page.of_all(directory))) == expected


class slots:  # noqa: N801 - reads as a function where it is used
    """Make processes that keep their values in files, as workers do, within this one."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        self.before = values.ValueClass, os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.directory)
        self.classes = []
        return self.slot

    def slot(self, number):
        """Return the collectors of a worker."""
        values.ValueClass = values.MultiProcessValue(lambda: f"worker{number}")
        self.classes.append(values.ValueClass)
        return Process()

    def __exit__(self, *_):
        values.ValueClass, directory = self.before
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
        if directory is not None:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        for each in self.classes:
            each.close_all_files()
