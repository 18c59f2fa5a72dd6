"""Limits over real processes: workers and replicas count together, and dollars outlive them."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.keyed import auth, keyed
from tests.processes import GatewayProcess, gateway_process
from tests.redis_server import serve_redis, wait_for
from tests.upstream import FakeOpenAI, serve

PRICED = "price = 1000"
EIGHT = "12345678" * 4
LIMIT = 40


def config(upstream: FakeOpenAI, store: str, limits: str, workers: int = 1) -> str:
    server = f'[server]\nworkers = {workers}\nlog_format = "json"\ndrain_delay = "0s"'
    rest = f'{server}\n[cache]\nstore = "{store}"'
    return keyed(upstream.base_url, limits, model=PRICED, rest=rest)


def ask(served: GatewayProcess, text: str, who: str = "alice") -> httpx2.Response:
    """Ask over a connection of its own, so that any worker may be the one that takes it."""
    body = {"model": "m", "input": text}
    return httpx2.post(
        f"{served.base_url}/embeddings", json=body, headers=auth(who), timeout=30, trust_env=False
    )


def hammer(gateways: list[GatewayProcess], requests: int) -> list[int]:
    """Ask so often, many at a time, all in turn; return the statuses."""
    with ThreadPoolExecutor(12) as pool:
        asked = [
            pool.submit(ask, gateways[number % len(gateways)], f"{number % 3}")
            for number in range(requests)
        ]
        return [one.result().status_code for one in asked]


def assert_counted(gateways: list[GatewayProcess]) -> None:
    """Ask for twice what there is in a minute; raise AssertionError for any other sum."""
    began = time.monotonic()
    statuses = hammer(gateways, 2 * LIMIT)
    came_back = (time.monotonic() - began) * LIMIT / 60
    assert set(statuses) == {200, 429}
    assert LIMIT <= statuses.count(200) <= LIMIT + came_back


def test_workers_on_one_sqlite_file_count_together(tmp_path: Path) -> None:
    """A small limit exactly; what is cached counts too."""
    upstream = FakeOpenAI(width=8)
    limits = f"requests_per_minute = {LIMIT}\nconcurrent_requests = 50"
    with (
        serve(upstream),
        gateway_process(config(upstream, f"sqlite://{tmp_path}/c.db", limits, 2)) as served,
    ):
        assert_counted([served])


def test_replicas_on_one_redis_count_together(tmp_path: Path) -> None:
    """Whichever is asked; a key has its name there, and nothing of its secret."""
    upstream = FakeOpenAI(width=8)
    limits = f"requests_per_minute = {LIMIT}\nconcurrent_requests = 50"
    with serve(upstream), serve_redis(tmp_path) as redis, ExitStack() as stack:
        toml = config(upstream, redis.url, limits)
        assert_counted([stack.enter_context(gateway_process(toml)) for _ in range(2)])
        names = redis.admin.keys("*limits*")
        assert names == [b"embgw:limits:alice"]


@pytest.mark.parametrize(
    ("store", "ending"), [("sqlite", "stop"), ("sqlite", "kill"), ("redis", "kill")]
)
def test_dollars_of_the_day_survive_the_gateway(store: str, ending: str, tmp_path: Path) -> None:
    """Stopped or killed; what was paid for stays cached, and costs nothing."""
    if time.time() % 86_400 > 86_340:
        time.sleep(86_400 - time.time() % 86_400)  # the day would end in the middle
    upstream = FakeOpenAI(width=8)
    with serve(upstream), ExitStack() as stack:
        url = f"sqlite://{tmp_path}/c.db"
        if store == "redis":
            url = stack.enter_context(serve_redis(tmp_path / "redis")).url
        toml = config(upstream, url, "usd_per_day = 0.03")
        served = None
        try:
            with gateway_process(toml) as served:
                assert [ask(served, EIGHT + n).status_code for n in "abc"] == [200] * 3
                assert ask(served, EIGHT + "d").status_code == 429
                if ending == "kill":
                    served.kill()
        except AssertionError:
            assert ending == "kill", "it did not stop well"
        with gateway_process(toml) as served:
            assert ask(served, EIGHT + "d").status_code == 429
            assert ask(served, EIGHT + "a").status_code == 200
            assert ask(served, EIGHT + "d", "bob").status_code == 200
        assert upstream.calls == 4


@pytest.mark.parametrize("trouble", ["kill", "freeze"])
def test_with_redis_away_each_enforces_its_part_and_says_so(trouble: str, tmp_path: Path) -> None:
    """In the headers, in a metric, and in one line for each change; then they count together."""
    upstream = FakeOpenAI(width=8)
    limits = "requests_per_minute = 600\nusd_per_day = 1"
    with serve(upstream), serve_redis(tmp_path) as redis, ExitStack() as stack:
        toml = config(upstream, redis.url, limits)
        gateways = [stack.enter_context(gateway_process(toml)) for _ in range(2)]

        def told(served: GatewayProcess) -> str:
            answer = ask(served, "kept")
            assert answer.status_code == 200
            return answer.headers["x-ratelimit-limit-requests"]

        def shared(served: GatewayProcess) -> bool:
            page = httpx2.get(f"{served.address}/metrics", headers=auth("bob"), trust_env=False)
            return "gateway_limits_shared 1.0" in page.text

        for _ in range(2):  # so that each has heard of the other
            assert [told(served) for served in gateways] == ["600", "600"]
        assert not any(map(shared, gateways))
        getattr(redis, trouble)()
        for served in gateways:
            wait_for(lambda served=served: told(served) == "300")
            assert shared(served)
            assert ask(served, "new").status_code == 200
        redis.start() if trouble == "kill" else redis.thaw()
        for served in gateways:
            wait_for(lambda served=served: told(served) == "600")
            assert not shared(served)
            assert len(served.events("limits are shared out: each worker enforces its part")) == 1
            assert len(served.events("limits are counted together again")) == 1
