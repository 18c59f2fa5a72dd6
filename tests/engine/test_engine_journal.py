"""The crash journal: three deaths refuse a text, one success clears it, rubbish begins anew."""

import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.engine.journal import DEATHS, REFUSED_SECONDS, ROWS, Journal

KEY = b"key"


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def opened(tmp_path, clock):
    """Return a function that starts the next engine's journal over the last one's file."""

    def run(slots=2):
        return Journal(tmp_path / "journal", KEY, slots, clock)

    return run


def die(journal, *digests):
    for slot, digest in enumerate(digests):
        journal.enter(slot, digest)


def test_the_third_death_refuses_a_text(opened):
    """Twice it is only a suspect."""
    digest = opened().digest(b"text", b"poison")
    refused = []
    for _ in range(DEATHS):
        die(opened(), digest)
        journal = opened()
        refused.append(journal.refused(digest))
        assert journal.suspected(digest)
    assert [False, False, True] == refused


def test_a_refusal_lasts_an_hour(opened, clock):
    """After it the text is tried again, by this engine and by the next."""
    digest = opened().digest(b"text", b"poison")
    for _ in range(DEATHS):
        die(opened(), digest)
    journal = opened()
    clock.now += REFUSED_SECONDS - 1
    assert journal.refused(digest)
    clock.now += 1
    assert not journal.refused(digest)
    assert not opened().suspected(digest)


def test_a_success_clears_a_suspect_for_the_next_engine_too(opened):
    """The innocent beside the culprit are cleared by being served."""
    journal = opened()
    culprit, innocent = (journal.digest(b"text", text) for text in (b"culprit", b"innocent"))
    for _ in range(DEATHS):
        journal = opened()
        die(journal, culprit, innocent)
        opened().clear(innocent)
    journal = opened()
    assert [True, False] == [journal.refused(digest) for digest in (culprit, innocent)]
    assert not journal.suspected(innocent)


def test_leaving_a_slot_or_the_journal_accuses_nobody(opened):
    """Only what was in work at the death counts."""
    journal = opened()
    digest = journal.digest(b"text", b"fine")
    journal.enter(0, digest)
    journal.leave(0)
    assert not opened().suspected(digest)
    journal = opened()
    journal.enter(1, digest)
    journal.close()
    assert not opened().suspected(digest)


def test_one_death_counts_once_for_a_text_in_two_slots(opened):
    """The same text from two clients dies once."""
    digest = opened().digest(b"text", b"twice")
    for _ in range(DEATHS - 1):
        die(opened(), digest, digest)
    assert not opened().refused(digest)


def test_another_number_of_slots_reads_the_old_file(opened):
    """An engine that starts again with more contexts still knows."""
    digest = opened().digest(b"text", b"poison")
    for slots in (2, 5, 1):
        journal = opened(slots)
        journal.enter(slots - 1, digest)
    assert opened(9).refused(digest)


def test_the_table_is_bounded_and_keeps_the_latest(opened):
    """A thousand deaths of a hundred texts do not make the file grow."""
    slots = 600
    for generation in range(3):
        journal = opened(slots)
        digests = [journal.digest(b"text", b"%d %d" % (generation, n)) for n in range(slots)]
        die(journal, *digests)
    journal = opened()
    latest = [journal.digest(b"text", b"2 %d" % n) for n in range(slots)]
    assert all(journal.suspected(digest) for digest in latest)
    oldest = [journal.digest(b"text", b"0 %d" % n) for n in range(slots)]
    assert ROWS - 2 * slots <= sum(journal.suspected(digest) for digest in oldest) < slots


def test_the_file_is_private_and_holds_no_text(opened, tmp_path):
    """Keyed digests only; another key gives others."""
    journal = opened()
    die(journal, journal.digest(b"text", b"canary"))
    path = tmp_path / "journal"
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert b"canary" not in path.read_bytes()
    other = Journal(tmp_path / "other", b"other key", 1, lambda: 0.0)
    assert journal.digest(b"text", b"canary") != other.digest(b"text", b"canary")
    assert journal.digest(b"text", b"canary") != journal.digest(b"ids", b"canary")


def test_a_clock_that_was_set_back_forgets(opened, clock):
    """A death in the future is nobody's."""
    digest = opened().digest(b"text", b"poison")
    for _ in range(DEATHS):
        die(opened(), digest)
    assert opened().refused(digest)
    clock.now -= 10 * REFUSED_SECONDS
    assert not opened().suspected(digest)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=400), st.integers(0, 200), st.booleans())
def test_whatever_stands_in_the_file_a_journal_opens(tmp_path, rubbish, at, over):
    """Rubbish, and rubbish over a good file: it is usable at once."""
    path = tmp_path / "journal"
    journal = Journal(path, KEY, 2, lambda: 1000.0)
    die(journal, journal.digest(b"text", b"a"))
    data = bytearray(path.read_bytes()) if over else bytearray()
    data[at : at + len(rubbish)] = rubbish
    path.write_bytes(data)
    journal = Journal(path, KEY, 2, lambda: 1000.0)
    digest = journal.digest(b"text", b"b")
    journal.enter(1, digest)
    assert Journal(path, KEY, 2, lambda: 1000.0).suspected(digest)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    """The engine says so at start, not at the first crash."""
    with pytest.raises(OSError, match="No such file"):
        Journal(tmp_path / "none" / "journal", KEY, 1, lambda: 0.0)
