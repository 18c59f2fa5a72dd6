"""What the process takes, and how late its event loop is."""

import asyncio
import os
import time

import psutil
import pytest
from prometheus_client import CollectorRegistry

from gateway.metrics.process import ProcessMetrics
from gateway.metrics.tally import Tally
from tests.running import one_model


def metrics(**options):
    """Return the collectors, and what they have of a name."""
    registry, tally = CollectorRegistry(), Tally()
    process = ProcessMetrics(registry, tally, **options)

    def value(name, **labels):
        tally.flush()
        return registry.get_sample_value(f"gateway_{name}", labels)

    return process, value


def test_what_it_takes_is_what_the_system_says():
    """Memory, processor time and open files, by another way of asking."""
    process, value = metrics()
    with open(os.devnull):  # noqa: PTH123 - a descriptor more
        process.look()
    this = psutil.Process()
    assert value("process_resident_bytes") == pytest.approx(this.memory_info().rss, rel=0.05)
    # There was the file that is closed now; and psutil counts the one that it needs to look.
    assert value("process_open_fds") == this.num_fds()
    times = this.cpu_times()
    assert value("process_cpu_seconds_total") == pytest.approx(times.user + times.system, abs=0.5)
    assert value("workers") == 1
    assert abs(value("process_start_time_seconds") - time.time()) < 60


def test_processor_time_is_counted_on():
    """Each look adds what was used since the one before."""
    used = iter([2.0, 2.5, 2.5, 4.0]).__next__
    process, value = metrics(cpu=used)
    seen = []
    for _ in range(4):
        process.look()
        seen.append(value("process_cpu_seconds_total"))
    assert seen == [2.0, 2.5, 2.5, 4.0]


def test_a_blocked_event_loop_shows():
    """A timer that comes too late is counted with its delay; on time, with hardly any."""

    async def scene():
        process, value = metrics()
        watching = asyncio.create_task(process.watch(time.monotonic))
        try:
            async with asyncio.timeout(20):
                while not value("event_loop_lag_seconds_count"):
                    await asyncio.sleep(0.01)
            time.sleep(0.7)
            async with asyncio.timeout(20):
                while not late(value):
                    await asyncio.sleep(0.01)
        finally:
            watching.cancel()
        assert value("event_loop_lag_seconds_sum") >= 0.5

    def late(value):
        return value("event_loop_lag_seconds_count") - value(
            "event_loop_lag_seconds_bucket", le="0.5"
        )

    asyncio.run(scene())


def test_a_process_alone_tells_of_itself(gateway, fake_openai):
    """Without any worker beside it."""
    running = gateway(one_model(fake_openai.base_url))
    told = {sample.name: sample.value for sample in running.samples() if not sample.labels}
    assert told["gateway_workers"] == 1
    assert told["gateway_process_resident_bytes"] > 10e6
    assert told["gateway_process_cpu_seconds_total"] > 0
    assert told["gateway_process_open_fds"] > 3
    running.wait_until(lambda: running.metric("gateway_event_loop_lag_seconds_count") > 0)
