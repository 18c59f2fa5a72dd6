"""Which engines a config gets: those that run already, where nothing of them has changed."""

import asyncio
import io
import os

import pytest
from config_texts import parse

from gateway.edge.server import StartError
from gateway.logs import open_log
from gateway.running.fleet import Fleet
from tests.heavy import kills
from tests.tiny_gguf import write_encoder

TOML = """
[upstreams.u]
kind = "llama"
model = "model.gguf"
load = "first-use"
{options}
[models.m]
upstreams = ["u"]
"""


@pytest.fixture
def config(tmp_path):
    write_encoder(tmp_path / "model.gguf")
    return lambda options="": parse(TOML.format(options=options), base_dir=tmp_path)


@pytest.fixture
def log():
    return open_log("info", "json", io.StringIO())


def engines_of(tmp_path, log, *steps):
    """Return what the engine of the upstream is called after each step, a config or an action."""

    async def go() -> list[str]:
        fleet = Fleet(tmp_path, log)
        found = []
        try:
            for step in steps:
                if callable(step):
                    step()
                    continue
                begun = await fleet.begin(step)
                await fleet.loaded(begun)
                found += begun.engines.values()
        finally:
            await fleet.keep(())
        return found

    return asyncio.run(go())


def test_an_engine_goes_on_where_nothing_of_it_changed(config, tmp_path, log):
    """What only the gateway itself looks at is not the engine's business; going back finds it."""
    same, other, back = config(), config("n_ctx = 64"), config("concurrency = 7")
    first, again, changed, returned = engines_of(tmp_path, log, same, same, other, back)
    assert first == again == returned == "u"
    assert changed != first


def test_another_file_in_its_place_is_another_engine(config, tmp_path, log):
    """And so is the same file, written anew: the running engine has read the old one."""

    def replace():
        write_encoder(tmp_path / "new.gguf", seed=2).replace(tmp_path / "model.gguf")

    first, second = engines_of(tmp_path, log, config(), replace, config())
    assert first != second


def test_nothing_is_left_of_engines_that_nobody_uses(config, tmp_path, log):
    """Neither sockets nor what was written beside them."""
    engines_of(tmp_path, log, config(), config("n_ctx = 64"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_file_that_is_no_model_is_refused(config, tmp_path, log):
    """Before anything is started for it."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(StartError, match=r"upstreams\.u\.model"):
        engines_of(tmp_path, log, config())


def test_an_engine_that_dies_over_its_model_is_not_waited_for(config, tmp_path, log):
    """It is tried again and again; a reload, which cannot wait for ever, gives up on it."""

    async def kill() -> None:
        while True:
            kills.kill_engines(os.getpid())
            await asyncio.sleep(0.01)

    async def wait() -> None:
        fleet = Fleet(tmp_path, log)
        eager = parse(TOML.replace('load = "first-use"', "").format(options=""), base_dir=tmp_path)
        killing = asyncio.create_task(kill())
        try:
            async with asyncio.timeout(60):
                await fleet.loaded(await fleet.begin(eager), patient=False)
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            await fleet.keep(())

    config()
    with pytest.raises(StartError, match=r"upstreams\.u: the engine died 3 times"):
        asyncio.run(wait())
