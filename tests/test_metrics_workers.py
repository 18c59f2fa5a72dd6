"""Metrics of several workers: one page, whoever is asked, and whoever of them has died."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Self

import httpx2
import psutil

from tests import upstream_behaviours as behave
from tests.processes import GatewayProcess, gateway_process
from tests.running import one_model
from tests.scraping import Series, falls, value
from tests.upstream import FakeOpenAI, serve

SERVER = '[server]\nworkers = 2\nlog_format = "json"\ndrain_delay = "0s"'


def config(upstream: FakeOpenAI, directory: Path) -> str:
    """Return the config of two workers."""
    store = f'[cache]\nstore = "sqlite://{directory}/cache.db"'
    return one_model(upstream.base_url, rest=f"{SERVER}\n{store}")


def ask(served: GatewayProcess, *texts: str) -> httpx2.Response:
    """Ask over a connection of its own, so that any worker may be the one that takes it."""
    body = {"model": "m", "input": texts}
    return httpx2.post(f"{served.base_url}/embeddings", json=body, timeout=30, trust_env=False)


def workers(served: GatewayProcess) -> list[psutil.Process]:
    """Return those that run now, the oldest first."""
    children = psutil.Process(served.pid).children()
    found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    return sorted(found, key=psutil.Process.create_time)


def scrape(served: GatewayProcess) -> str:
    """Return the page of whichever worker takes the connection."""
    while True:
        with suppress(httpx2.TransportError):  # one that was just killed
            return httpx2.get(f"{served.address}/metrics", timeout=30, trust_env=False).text


def kill_oldest(served: GatewayProcess) -> None:
    """kill -9, without a moment to say or write anything; return when a successor runs."""
    died = len(served.events("worker died"))
    before = workers(served)
    before[0].kill()
    served.wait_for(lambda: served.events("worker died")[died:], timeout=20, what="no report")
    end = time.monotonic() + 20
    while len(workers(served)) < len(before):
        assert time.monotonic() < end, "nobody took its place"
        time.sleep(0.02)


def wait_for(
    served: GatewayProcess, name: str, wanted: float, *, times: int = 5, **labels: str
) -> None:
    """Return when whoever is asked, so often, tells this value; one may lag by a second."""
    end, seen = time.monotonic() + 20, 0
    while seen < times:
        told = value(scrape(served), name, **labels)
        seen = seen + 1 if told == wanted else 0
        assert time.monotonic() < end, f"{name} is {told}, not {wanted}"


class Traffic:
    """Asks for texts new and old, over a connection each, for as long as the block runs."""

    def __init__(self, served: GatewayProcess) -> None:
        self._served = served
        self._over = threading.Event()
        self._answered = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._ask, args=(n * 10**6,)) for n in range(3)]

    def go_on(self, answers: int) -> None:
        """Return after so many more answers."""
        for _ in range(answers):
            assert self._answered.acquire(timeout=30), "nobody answers"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        while not self._over.is_set():
            number += 1
            with suppress(httpx2.TransportError):  # of a worker that was killed
                ask(self._served, f"text {number}", f"text {number - 1}", "same")
                self._answered.release()


@contextmanager
def scraped(served: GatewayProcess) -> Iterator[list[Series]]:
    """Scrape all the time while the block runs; yield what has fallen, each time it did."""
    over = threading.Event()
    fallen: list[Series] = []

    def look() -> None:
        before = scrape(served)
        while not over.is_set():
            after = scrape(served)
            if fell := falls(before, after):
                fallen.append(fell)
            before = after

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield fallen
    finally:
        over.set()
        looking.join()


def test_no_count_ever_falls_while_workers_are_killed(tmp_path):
    """Scraped from one worker or the other, under load, over four deaths."""
    upstream = FakeOpenAI(width=8)
    answered = {"operation": "embeddings", "code": "200"}
    with (
        serve(upstream),
        gateway_process(config(upstream, tmp_path)) as served,
        scraped(served) as fallen,
        Traffic(served) as traffic,
    ):
        counted = [0.0]
        for _ in range(4):
            traffic.go_on(15)
            time.sleep(1.2)  # each has told all others by then
            counted.append(value(scrape(served), "gateway_requests_total", **answered) or 0)
            kill_oldest(served)
        traffic.go_on(15)
        files = served.temporary.glob("*/metrics/*.db")
        # However often they die: a scrape takes no longer for it.
        assert {file.name.split("_")[-1] for file in files} == {"worker0.db", "worker1.db"}
    assert not fallen
    assert all(after > before for before, after in pairwise(counted))


def test_what_a_dead_worker_held_is_held_no_more(tmp_path):
    """Its requests, its calls and its memory; what it has counted stays."""
    upstream, hang = FakeOpenAI(width=8), behave.Hang()
    with (
        serve(upstream),
        gateway_process(config(upstream, tmp_path)) as served,
        ThreadPoolExecutor(8) as pool,
    ):
        assert ask(served, "kept").status_code == 200
        wait_for(served, "gateway_cache_entries", 1)
        upstream.always(hang)
        asked = [pool.submit(ask, served, f"text {number}") for number in range(8)]
        upstream.wait_for_calls(9)
        embedding = {"operation": "embeddings"}
        wait_for(served, "gateway_requests_in_flight", 8, **embedding)
        wait_for(served, "gateway_upstream_in_flight", 8)
        workers(served)[0].kill()
        wait_for(served, "gateway_workers", 1, times=1)
        wait_for(served, "gateway_workers", 2)
        kill_oldest(served)
        assert [type(one.exception(20)) for one in asked] == [httpx2.RemoteProtocolError] * 8
        wait_for(served, "gateway_requests_in_flight", 0, **embedding)
        wait_for(served, "gateway_upstream_in_flight", 0)
        wait_for(served, "gateway_cache_entries", 0)
        wait_for(served, "gateway_workers", 2)
        wait_for(served, "gateway_requests_total", 1, code="200", **embedding)
        began = value(scrape(served), "gateway_process_start_time_seconds")
        oldest = workers(served)[0].create_time()
        assert oldest <= began < oldest + 20
        hang.release()
