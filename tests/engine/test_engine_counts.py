"""What an engine counts goes on where an earlier one was killed, idle, or never was."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engine_counts import WAITS, EngineCounter, EngineCounts, read_counts
from tests.engine.running_engine import ROOT

LIVES = st.lists(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 3), st.integers(0, 9000)),
            st.floats(0, 100),
            st.sampled_from(WAITS),
        )
    ),
    max_size=4,
)


@given(lives=LIVES)
def test_counts_add_up_over_lives(tmp_path_factory, lives):
    """Texts, tokens, and waits in their buckets, read at any moment."""
    path = tmp_path_factory.mktemp("engine") / "e.counts"
    texts = tokens = 0
    waits = []
    assert read_counts(path) == EngineCounts()
    for life in lives:
        with EngineCounter(path) as counter:
            for said in life:
                if isinstance(said, tuple):
                    counter.decoded(*said)
                    texts, tokens = texts + said[0], tokens + said[1]
                else:
                    counter.waited(said)
                    waits.append(said)
            told = read_counts(path)
        assert (told.texts, told.tokens) == (texts, tokens)
        assert told.wait_seconds == pytest.approx(sum(waits))
        bounds = [0.0, *WAITS, float("inf")]
        for number, count in enumerate(told.waits):
            low, high = bounds[number], bounds[number + 1]
            expected = sum(low < wait <= high or (wait == 0 and number == 0) for wait in waits)
            assert count == expected


@pytest.mark.parametrize("left", [b"", b"odd", bytes(1000)], ids=["empty", "short", "long"])
def test_a_file_of_another_form_is_begun_anew(tmp_path, left):
    """As an older gateway may have left it."""
    path = tmp_path / "e.counts"
    path.write_bytes(left)
    assert read_counts(path) == EngineCounts()
    with EngineCounter(path) as counter:
        counter.decoded(1, 2)
    assert read_counts(path)[:2] == (1, 2)


def test_threads_lose_nothing(tmp_path):
    """Each context counts in a thread of its own."""
    path = tmp_path / "e.counts"
    with EngineCounter(path) as counter:
        threads = [
            threading.Thread(target=lambda: [counter.decoded(1, 3) for _ in range(2000)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert read_counts(path)[:2] == (8000, 24000)


def test_no_reader_ever_sees_a_count_fall(tmp_path):
    """Read all the time from here, while another process counts and is killed."""
    path = tmp_path / "e.counts"
    program = (
        "import sys; from pathlib import Path; from gateway.engine_counts import EngineCounter\n"
        "counter = EngineCounter(Path(sys.argv[1]))\n"
        "print(flush=True)\n"
        "while True: counter.decoded(1, 7); counter.waited(0.3)\n"
    )
    before = EngineCounts()
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=ROOT
        ) as counting:
            counting.stdout.readline()
            begun = read_counts(path).texts
            while before.texts < begun + 20_000:
                after = read_counts(path)
                assert after.texts >= before.texts
                assert after.tokens >= before.tokens
                assert after.wait_seconds >= before.wait_seconds
                assert all(a >= b for a, b in zip(after.waits, before.waits, strict=True))
                before = after
            os.kill(counting.pid, signal.SIGKILL)


@pytest.mark.engine
def test_the_next_engine_counts_on(start, models):
    """After kill -9, and after it left in good order."""
    engine = start(models["encoder"], contexts=1)
    tokens = engine.ask(["hello world"])["usage"]["total_tokens"]
    engine.kill()
    engine.start()
    assert engine.counts()[:2] == (1, tokens)
    engine.ask(["hello world", "hello world"])
    engine.stop()
    engine.start()
    engine.ask(["hello world"])
    counts = engine.counts()
    assert counts[:2] == (4, 4 * tokens)
    assert sum(counts.waits) == 3


@pytest.mark.engine
def test_a_request_that_waits_behind_another_is_told_to_have_waited(start, models):
    """The wait is that of a request's first text."""
    engine = start(models["slow"], contexts=1)
    long = [1, *[270] * 1500]
    engine.vectors([long, long, "hello"])
    alone = engine.counts()
    assert sum(alone.waits) == 1
    threads = [threading.Thread(target=engine.vectors, args=([long],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = engine.counts()
    assert sum(counts.waits) == 4
    assert counts.wait_seconds - alone.wait_seconds > 3 * alone.wait_seconds
