"""One answer for many: whoever reads, whenever they come and go, reads all of it or its failure."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chat.recording import Reader, Recording, Recordings
from gateway.completion import Kind
from gateway.errors import UpstreamError

KEY = b"k" * 32
USAGE = (b"usage|", Kind.USAGE)


def chunk(number):
    return (b"%d|" % number, Kind.CHUNK)


class Making:
    """What makes a recording, step by step as the test says."""

    def __init__(self):
        self.steps = asyncio.Queue()
        self.called_off = False
        self.recording = None

    async def __call__(self, recording):
        self.recording = recording
        try:
            while (step := await self.steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                recording.add([step])
        except asyncio.CancelledError:
            self.called_off = True
            raise


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def read(reader):
    """Read to the end; return what came, and how it failed."""
    came = b""
    try:
        async for piece in reader:
            came += piece
    except UpstreamError as error:
        return came, error
    finally:
        await reader.aclose()
    return came, None


ACTIONS = st.lists(
    st.one_of(
        st.just("add"), st.just("join"), st.just("join with usage"),
        st.tuples(st.just("leave"), st.integers(0, 9)),
    ),
    max_size=30,
)  # fmt: skip


@given(actions=ACTIONS, fails=st.booleans())
def test_everybody_reads_all_of_it(actions, fails):
    """In any order of coming, going and growing; when the last one leaves, it is called off."""
    asyncio.run(_coming_and_going(actions, fails=fails))


async def _coming_and_going(actions, *, fails):
    making, recordings = Making(), Recordings()
    recording = recordings.begin(KEY, making)
    readers = [_reading(recording, with_usage=True)]
    await settle()
    added = []
    for action in actions:
        present = [each for each in readers if not each[1].done()]
        if not present:
            break
        if action == "add":
            added.append(USAGE if len(added) % 3 == 2 else chunk(len(added)))
            making.steps.put_nowait(added[-1])
        elif action in ("join", "join with usage"):
            assert recordings.get(KEY) is recording
            readers.append(_reading(recording, with_usage=action == "join with usage"))
        else:
            present[action[1] % len(present)][1].cancel()
        await settle()
    present = [each for each in readers if not each[1].done()]
    failure = UpstreamError("broken") if fails else None
    making.steps.put_nowait(failure)
    for with_usage, task in present:
        told = b"".join(event for event, kind in added if with_usage or kind is Kind.CHUNK)
        assert await task == (told, failure)
    await settle()
    assert making.called_off is (not present)
    assert len(recordings) == 0
    assert recordings.get(KEY) is None


def _reading(recording, *, with_usage):
    return with_usage, asyncio.ensure_future(read(Reader(recording, with_usage=with_usage)))


def run(test):
    asyncio.run(test())


def test_what_is_all_there_is_kept_although_everybody_left():
    """A client that closes at [DONE] must not cost the answer that was paid for."""

    async def test():
        kept = []

        async def make(recording):
            recording.watch.see(b"data: [DONE]\n\n")
            recording.add([(b"data: [DONE]\n\n", Kind.DONE)])
            await asyncio.sleep(0.01)
            kept.append(True)

        recordings = Recordings()
        reader = Reader(recordings.begin(KEY, make), with_usage=False)
        assert await anext(reader) == b"data: [DONE]\n\n"
        await reader.aclose()
        await reader.aclose()
        await asyncio.sleep(0.05)
        assert kept
        assert len(recordings) == 0

    run(test)


def test_one_that_was_called_off_before_it_began_leaves_nothing():
    """Its first step never ran, so it could not tidy up itself."""

    async def test():
        making, recordings = Making(), Recordings()
        reader = Reader(recordings.begin(KEY, making), with_usage=False)
        await reader.aclose()
        assert recordings.get(KEY) is None
        await settle()
        assert len(recordings) == 0
        assert making.recording is None

    run(test)


def test_a_failure_is_not_shared_with_who_comes_later():
    """Who waits gets it; whoever comes then begins anew, even before the first has tidied up."""

    async def test():
        first, second, recordings = Making(), Making(), Recordings()
        failed = recordings.begin(KEY, first)
        reader = asyncio.ensure_future(read(Reader(failed, with_usage=False)))
        waiting = asyncio.ensure_future(failed.ended())
        await settle()
        first.steps.put_nowait(UpstreamError("broken"))
        while recordings.get(KEY) is failed:
            await asyncio.sleep(0)
        anew = recordings.begin(KEY, second)
        other = asyncio.ensure_future(read(Reader(anew, with_usage=False)))
        assert (await reader)[1] is not None
        with pytest.raises(UpstreamError):
            await waiting
        await settle()
        assert recordings.get(KEY) is anew
        second.steps.put_nowait(chunk(1))
        second.steps.put_nowait(None)
        assert await other == (b"1|", None)

    run(test)


def test_a_failure_that_nobody_waits_for_is_nobodys(caplog):
    """asyncio would log it when it is thrown away."""

    async def test():
        making = Making()
        recordings = Recordings()
        recording = recordings.begin(KEY, making)
        await settle()
        making.steps.put_nowait(UpstreamError("broken"))
        await settle()
        del recording

    run(test)
    assert caplog.records == []


def test_comments_alone_are_no_beginning():
    """Until a stream has begun a refusal can still be told by its status."""

    async def test():
        async def make(recording):
            recording.add([(b": ping\n\n", Kind.OTHER)], begun=False)
            await held.wait()
            recording.add([chunk(1)], begun=True)

        held = asyncio.Event()
        recording = Recordings().begin(KEY, make)
        begun = asyncio.ensure_future(recording.begun())
        await settle()
        assert not begun.done()
        held.set()
        await begun
        await recording.ended()

    run(test)


def test_a_stream_without_end_is_given_up(monkeypatch):
    """Nothing holds it up, as nobody reads it at a pace of their own."""
    monkeypatch.setattr("gateway.chat.recording.LONGEST", 100)

    async def test():
        recording = Recording()
        recording.add([(b"x" * 100, Kind.CHUNK)])
        with pytest.raises(UpstreamError) as raised:
            recording.add([(b"x", Kind.CHUNK)])
        assert raised.value.code == "upstream_answer_too_large"
        assert recording.so_far[:100] == b"x" * 100

    run(test)
