"""`gateway drift`: noise is noise, another model is drift, and what can't be asked is neither."""

import json
import re
import time
from math import cos, sin

import httpx2
import pytest

from gateway.drift.canaries import DRAWS, TEXTS
from gateway.drift.comparison import FACTOR, FLOOR
from tests.cli.commands import gateway, write_config
from tests.cli.drifting import ANGLES, another_model, asked, drift, drift_config, turned
from tests.processes import GatewayProcess, gateway_process
from tests.redis_server import free_port
from tests.running import one_model
from tests.upstream_behaviours import nan, slow, status, well

EXACT = 1e-6
"""What float32 leaves of an angle's cosine."""


@pytest.fixture(autouse=True)
def jitter(unlike, fake_openai):
    """Answers differ a little each time, as OpenAI's do."""
    fake_openai.noise = 1e-4


@pytest.fixture
def config(tmp_path, fake_openai):
    """A config of one model with a store."""
    return drift_config(tmp_path / "a", fake_openai.base_url)


@pytest.fixture(params=["in the command", "by a server"])
def way(request, config, gateway_for):
    """The words that lead to the gateway of the config: inside the command, or one that runs."""
    if request.param == "in the command":
        return ["-c", config]
    return ["m", "--url", gateway_for(config).base_url]


# What is found


def test_noise_is_noise_and_another_model_is_drift(way, fake_openai):
    """And where the old one is back, all is well again: what was kept has stayed."""
    [first] = drift(*way)
    assert (first["verdict"], first["first_seen"]) == ("noise", True)
    [again] = drift(*way, "--times", "3")
    assert (again["verdict"], again["first_seen"]) == ("noise", False)
    assert 0 < again["distance"] < FLOOR
    assert asked(fake_openai) == DRAWS + 1 + 3

    fake_openai.always(another_model)
    [changed] = drift(*way, code=1)
    assert changed["verdict"] == "drift"
    assert changed["distance"] > changed["threshold"] >= FLOOR
    fake_openai.always(None)
    assert drift(*way)[0]["verdict"] == "noise"


def test_what_is_within_twice_the_noise_is_noise(config, fake_openai):
    """A model that is this loose is allowed a little more than was seen at first."""
    fake_openai.noise = 0.0
    fake_openai.script(*map(turned, ANGLES), turned(0.095))
    [found] = drift("-c", config)
    assert found["verdict"] == "noise"
    assert found["noise"] < found["distance"] < found["threshold"]


def test_the_same_bits_are_steady(way, fake_openai):
    """Of a model that does not vary, every figure is that of equality."""
    fake_openai.noise = 0.0
    [found] = drift(*way, "--times", "4")
    assert found["verdict"] == "steady"
    assert (found["noise"], found["distance"]) == (0.0, 0.0)
    for text in found["texts"]:
        assert text["distances"] == [0.0] * 4
        assert (text["difference_min"], text["difference_max"], text["cosine"]) == (0.0, 0.0, 1.0)
        assert text["different"] == 1


def test_the_figures_are_those_of_the_angles(config, fake_openai):
    """Noise: the widest angle between kept draws; distance: that to the nearest of them."""
    fake_openai.noise = 0.0
    fake_openai.script(*map(turned, ANGLES), turned(0.1), turned(0.05), turned(0.1))
    [found] = drift("-c", config, "--times", "3", code=1)
    assert found["noise"] == pytest.approx(1 - cos(0.04), abs=EXACT)
    assert found["distance"] == pytest.approx(1 - cos(0.06), abs=EXACT)
    assert found["threshold"] == FACTOR * found["noise"] > FLOOR
    assert (found["width"], found["kept"], found["times"]) == (32, DRAWS, 3)
    assert [text["text"] for text in found["texts"]] == list(TEXTS)
    for text in found["texts"]:
        expected = [1 - cos(0.06), 1 - cos(0.01), 1 - cos(0.06)]
        assert text["distances"] == pytest.approx(expected, abs=EXACT)
        assert text["cosine"] == pytest.approx(cos(0.06), abs=EXACT)
        assert text["difference_max"] == pytest.approx(sin(0.1) - sin(0.04), abs=EXACT)
        assert text["difference_min"] == 0.0
        assert text["norm"] == pytest.approx(1, abs=EXACT)
        assert text["different"] == 2


def test_another_width_is_drift(way, fake_openai):
    """Such vectors are refused, so there are no figures; and what to do is said."""
    drift(*way)
    fake_openai.width = 48
    [found] = drift(*way, "--times", "2", code=1)
    assert found["verdict"] == "drift"
    assert "48 components where this model's have 32" in found["why"]


def test_what_is_said_once_is_not_believed(config, fake_openai):
    """Some servers answer one request in many with something else."""
    drift("-c", config)
    fake_openai.script(another_model)
    [found] = drift("-c", config)
    assert (found["verdict"], found["times"]) == ("noise", 2)
    assert found["distance"] > found["threshold"]
    fake_openai.script(*[well] * 3, another_model)
    told = gateway("drift", "-c", config, "--times", "5").stdout
    assert re.search(r"One answer lies \S+ from the kept ones, the others do not", told)
    fake_openai.script(well, another_model, another_model)
    assert drift("-c", config, "--times", "4", code=1)[0]["verdict"] == "drift"


def test_a_model_is_asked_by_any_of_its_names(tmp_path, fake_openai):
    """What is kept belongs to what makes the vectors, not to a name."""
    config = drift_config(tmp_path, fake_openai.base_url, model='aliases = ["mm"]')
    assert drift("mm", "-c", config)[0]["first_seen"]
    assert not drift("m", "m", "-c", config)[0]["first_seen"]
    assert len(drift("m", "m", "-c", config)) == 1


def test_nothing_that_is_asked_anew_is_kept(config, fake_openai, gateway_for):
    """Not even where the kept draws are purged between two runs of the command."""
    drift("-c", config, "--times", "2")
    gateway("cache", "purge", "--all", "--yes", "-c", config)
    [found] = drift("-c", config)
    assert found["first_seen"]
    assert asked(fake_openai) == 2 * DRAWS + 3


def test_a_gateway_inside_a_command_begins_no_rounds_of_its_own(tmp_path, fake_openai):
    """It would ask on behalf of nobody; not even where it is to do so at once."""
    rest = '[server]\ndrift_delay = "0s"\ndrift_every = "500ms"'
    config = drift_config(tmp_path, fake_openai.base_url, rest=rest)
    fake_openai.always(slow(0.1))
    drift("-c", config, "--times", "12")
    assert asked(fake_openai) == DRAWS + 12


def test_the_command_and_a_gateway_compare_with_the_same(tmp_path, fake_openai):
    """Which has one store with it: what one saw first is what the other compares with.

    A model that is refused meanwhile is asked for its canary texts where some are kept.
    """
    rest = '[server]\ndrift_delay = "0s"\ndrift_every = "500ms"'
    model = 'drift = "refuse"'
    config = drift_config(tmp_path, fake_openai.base_url, model=model, rest=rest)
    with gateway_process(None, config=config) as served:
        wait_for_gauge(served, 0.0)
        assert not drift("-c", config)[0]["first_seen"]
        fake_openai.always(another_model)
        wait_for_gauge(served, 1.0)
        assert drift("-c", config, code=1)[0]["verdict"] == "drift"
        refused = httpx2.post(f"{served.base_url}/embeddings", json={"model": "m", "input": "new"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_drifted")
        # Of another tenant nothing was kept, and nothing is now, of the model as it is.
        [told] = drift("m", "--url", served.base_url, code=1)
        assert (told["verdict"], "first_seen" in told) == ("drift", False)
        assert "does not make the vectors any more" in told["why"]


def wait_for_gauge(served: GatewayProcess, value: float) -> None:
    """Return when the gateway says of `m` that it has drifted, or that it has not."""
    wanted = f'gateway_drift_detected{{model="m"}} {value}\n'
    until = time.monotonic() + 30
    while wanted not in httpx2.get(f"{served.address}/metrics").text:
        assert time.monotonic() < until, served.told("no such gauge")
        time.sleep(0.1)


# What cannot be asked


def test_a_name_that_nobody_serves_is_told(way):
    """And does not keep the others from being asked."""
    *options, place = way
    found = drift("m", "q", *[word for word in options if word != "m"], place, code=3)
    assert [told["verdict"] for told in found] == ["noise", "unasked"]
    assert "'q' is not served here. Served: m" in found[1]["why"]


def test_drift_counts_more_than_what_could_not_be_asked(config, fake_openai):
    """Of two exit codes the one that an index depends on."""
    drift("-c", config)
    fake_openai.always(another_model)
    assert [told["verdict"] for told in drift("m", "q", "-c", config, code=1)] == [
        "drift",
        "unasked",
    ]


@pytest.mark.parametrize("answer", [status(500, {"x-should-retry": "false"}), status(400), nan])
def test_an_upstream_that_fails_is_no_drift(config, fake_openai, answer):
    """Nor noise: nothing is known."""
    drift("-c", config)
    fake_openai.always(answer)
    [found] = drift("-c", config, code=3)
    assert found["verdict"] == "unasked"
    assert found["why"]


def test_offline_nobody_is_asked(tmp_path, fake_openai, gateway_for):
    """By neither way, and it is said why; though the kept draws are there."""
    place = tmp_path / "a"
    drift("-c", drift_config(place, fake_openai.base_url))
    before = fake_openai.calls
    whole = drift_config(place, fake_openai.base_url, rest="[server]\noffline = true")
    said = gateway("drift", "-c", whole, code=3).stderr
    assert "this config is offline: nobody is asked" in said
    [found] = drift("m", "--url", gateway_for(whole).base_url, code=3)
    assert found["why"] == "it is offline, or the gateway is: nobody is asked"
    one = drift_config(place, fake_openai.base_url, model="offline = true")
    assert drift("-c", one, code=3)[0]["why"] == found["why"]
    assert fake_openai.calls == before


def test_a_model_that_is_not_cached_has_nothing_to_compare_with(tmp_path, fake_openai):
    """What it said at first is gone."""
    config = drift_config(tmp_path, fake_openai.base_url, model='cache = "off"')
    assert "are not kept" in drift("-c", config, code=3)[0]["why"]


def test_a_store_that_is_away_may_know_better(tmp_path, fake_openai):
    """What is kept meanwhile is no baseline: another one may be in the store."""
    store = f"redis://127.0.0.1:{free_port()}/0"
    config = write_config(tmp_path, fake_openai.base_url, store)
    assert "a store is away" in drift("m", "-c", config, code=3)[0]["why"]


def test_a_server_that_keeps_nothing_is_told(fake_openai):
    """An upstream itself, say: its answers could only be compared with each other."""
    fake_openai.allow = ("seed",)
    [found] = drift("m", "--url", fake_openai.base_url, code=3)
    assert "keeps no vectors" in found["why"]
    said = gateway("drift", "--url", fake_openai.base_url, code=3).stderr
    assert "name those that you mean, of text-embedding-3-small, " in said


def test_a_wrong_key_is_told_and_not_shown(tmp_path, fake_openai, gateway_for):
    """Whether models are named or not."""
    keys = '[[keys]]\nname = "k"\nsecret = "sk-the-right-one"'
    running = gateway_for(drift_config(tmp_path, fake_openai.base_url, rest=keys))
    for models in ([], ["m"]):
        words = ["drift", *models, "--url", running.base_url]
        said = gateway(*words, "--api-key", "sk-wrong-and-secret", code=3).output
        assert "API key" in said
        assert "secret" not in said
        gateway(*words, GATEWAY_API_KEY="sk-the-right-one")


def test_an_address_where_nobody_is_is_told(config):
    """At once, as a model was not asked."""
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert "cannot be reached" in gateway("drift", "--url", url, code=3).stderr


# What is meant


def test_models_that_are_not_said_to_embed_have_to_be_named(tmp_path, fake_openai):
    """A chat model would be asked for vectors otherwise."""
    (tmp_path / "1.toml").write_text(one_model(fake_openai.base_url))
    said = gateway("drift", "-c", tmp_path / "1.toml", code=3).stderr
    assert 'no model here says task = "embedding"; name those that you mean, of m' in said
    task = 'task = "embedding"\n[models.c]\nupstreams = ["fake"]\n[models.d]\ntask = "chat"'
    both = one_model(fake_openai.base_url, model=f'{task}\nupstreams = ["fake"]')
    (tmp_path / "2.toml").write_text(both)
    told = gateway("drift", "--json", "-c", tmp_path / "2.toml")
    assert [each["model"] for each in json.loads(told.stdout)["models"]] == ["m"]
    assert 'not said to be "embedding": c' in told.stderr
    assert "this config has no store" in told.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--times", "0"], "0 is not in the range"),
        (["--picture", "x.pdf"], "ends in .svg"),
        (["--url", "http://127.0.0.1:9/v1", "--api-key", "two words"], "is no key"),
        (["--config", "no-such-file.toml"], "no-such-file.toml"),
    ],
)
def test_a_wrong_command_is_told_from_drift(words, said):
    """It has another exit code, and so has a wrong config."""
    assert said in gateway("drift", *words, code=2).stderr
