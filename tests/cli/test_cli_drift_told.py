"""What `gateway drift` shows: the table, the bars and the picture."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.drift_picture import picture
from gateway.commands.drift_report import NoFigures, bars, report
from gateway.commands.drift_words import lines, nines, shortened, small
from gateway.commands.drifting import Draws
from gateway.drift.canaries import DRAWS, TEXTS
from gateway.drift.comparison import FLOOR
from tests.cli.commands import gateway
from tests.cli.drifting import another_model, drift, drift_config, turned
from tests.cli.stored import at
from tests.processes import LOCAL

HOSTILE = '<script>alert("x")</script> & </svg>\x1b[31m'
DISTANCES = st.lists(st.one_of(st.just(0.0), st.floats(1e-18, 2.0)), min_size=1, max_size=60)


@pytest.fixture(autouse=True)
def alike(unlike, fake_openai):
    """Here angles alone tell answers apart."""
    fake_openai.noise = 0.0


def draws(*angles: float, kept: float = 0.0) -> Draws:
    """Return draws of all texts that are turned so far from the kept ones."""
    fresh = [[at_angle(angle)] * len(TEXTS) for angle in angles]
    return Draws([[at_angle(kept * n)] * len(TEXTS) for n in range(DRAWS)], fresh, False, 7200)


def at_angle(angle: float) -> bytes:
    return np.array([np.cos(angle), np.sin(angle), 0.0], "<f4").tobytes()


# On the terminal


def test_a_table_tells_each_text(fake_openai, tmp_path):
    """First what it means; then a line a text, whose beginning is shown; no bars for one draw."""
    config = drift_config(tmp_path, fake_openai.base_url)
    first = gateway("drift", "-c", config).stdout.splitlines()
    assert first[:3] == [
        "m: steady",
        "  Every answer has the bits of a kept one.",
        "  5 draws first seen now, 1 asked anew; 32 wide; noise 0, drift from 1.0e-3.",
    ]
    assert [line[-8:] for line in first[-5:]] == [shortened(text)[-8:] for text in TEXTS]
    fake_openai.always(another_model)
    second = gateway("drift", "-c", config, code=1).stdout
    assert second.startswith("m: drift\n  Answers lie ")
    assert "what makes them is not what made those" in second
    assert "Distance" not in second


def test_many_draws_are_told_as_bars(fake_openai, tmp_path):
    """Each answer is in one of them, and those that are equal bit for bit have their own."""
    config = drift_config(tmp_path, fake_openai.base_url)
    fake_openai.script(*[turned(0.0)] * DRAWS, *[turned(a) for a in (0, 0, 0.001, 0.001, 0.03)])
    told = gateway("drift", "-c", config, "--times", "5").stdout
    found = re.findall(r"^ +(\S+)  (#*) +(\d+)$", told, re.MULTILINE)
    assert sum(int(count) for _, _, count in found) == 5 * len(TEXTS)
    assert found[0] == ("0", "#" * 40, "10")
    assert (found[1][1:], found[-1][1:]) == (("#" * 40, "10"), ("#" * 20, "5"))


def test_who_could_not_be_asked_is_told_why():
    """In the server's words."""
    told = lines(NoFigures(model="m", verdict="unasked", why="It is away."))
    assert told == ["m: could not be asked", "  It is away."]


def test_how_long_it_has_been_kept_is_told_in_one_unit():
    """The one that suits."""
    for seconds, words in [(0, "0 s"), (119, "119 s"), (120, "2 minutes"), (7200, "2 hours")]:
        since = Draws(draws(0.0).kept, draws(0.0).fresh, False, seconds)
        assert f"kept for {words}, 1 asked anew" in lines(report("m", since))[2]


@given(DISTANCES, st.sampled_from([None, 1, 7]))
def test_every_distance_is_in_one_bar(distances, parts):
    """They stand beside each other from the least to the largest, and are few."""
    found = bars(distances, parts)
    assert sum(bar.count for bar in found) == len(distances)
    zeros = sum(distance == 0.0 for distance in distances)
    assert [bar.count for bar in found if bar.high == 0.0] == [zeros] * (zeros > 0)
    above = [bar for bar in found if bar.high]
    for one, other in pairwise(above):
        assert one.high == other.low
    for bar in above[:1] + above[-1:]:
        close = [d for d in distances if bar.low * (1 - 1e-9) <= d <= bar.high * (1 + 1e-9)]
        assert len(close) >= bar.count > 0
    assert parts or len(found) <= 24


@given(st.floats(1e-15, 1.9))
def test_figures_keep_what_matters(gap):
    """A cosine is never rounded to 1, nor a difference to 0."""
    assert float(nines(1 - gap)) < 1
    assert float(nines(1 - gap)) == pytest.approx(1 - gap, abs=max(0.06 * gap, 5e-4 * (gap > 0.01)))
    assert float(small(gap)) == pytest.approx(gap, rel=0.06)
    assert (nines(1.0), small(0.0)) == ("1", "0")


def test_a_text_is_shortened_to_the_columns_it_takes():
    """Characters that are two columns wide count so; of several lines the first is shown."""
    assert shortened("abc\ndef") == "abc"
    assert shortened("x" * 36) == "x" * 36
    assert shortened("x" * 37) == "x" * 35 + "…"
    assert shortened("漢" * 19) == "漢" * 17 + "…"


# The picture


def panels(svg: str) -> list[ET.Element]:
    """Return the panels of a picture that is well-formed XML."""
    return ET.fromstring(svg).findall("{*}g")


def counts(panel: ET.Element) -> list[int]:
    """Return how many answers each bar of a panel stands for."""
    titles = panel.findall("{*}rect/{*}title")
    return [int((title.text or "").partition(":")[0].replace(",", "")) for title in titles]


def test_a_picture_has_every_answer_in_it(fake_openai, tmp_path):
    """As SVG, in a panel a model; what is beyond the limit is marked."""
    config = drift_config(tmp_path, fake_openai.base_url)
    fake_openai.script(*[turned(0.0)] * DRAWS, *map(turned, (0.0, 0.01, 0.02, 0.5, 0.5)))
    out = tmp_path / "drift.svg"
    told = gateway("drift", "m", "q", "-c", config, "--times", "5", "--picture", out, code=1)
    assert "m: drift" in told.stdout
    shown, unasked = panels(out.read_text())
    assert sum(counts(shown)) == 5 * len(TEXTS)
    assert counts(unasked) == []


def test_what_is_beyond_the_limit_is_marked():
    """And nothing else."""
    told = report("m", draws(0.0, 0.01, 0.5))
    [panel] = panels(picture([told]))
    kinds = [
        bar.get("class") for bar in panel.findall("{*}rect") if bar.find("{*}title") is not None
    ]
    assert kinds.count("bar far") == len(TEXTS)
    assert kinds.count("bar") == 2 * len(TEXTS)
    assert told.threshold == FLOOR


def test_names_are_text_in_a_picture():
    """Of models, and in the words of a server; what would steer a terminal is left out."""
    svg = picture(
        [report(HOSTILE, draws(0.0)), NoFigures(model="m", verdict="unasked", why=HOSTILE)]
    )
    texts = ["".join(text.itertext()) for text in ET.fromstring(svg).findall(".//{*}text")]
    shown = HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert f"{shown}: steady" in texts
    assert shown in texts
    told = lines(NoFigures(model=HOSTILE, verdict="unasked", why=HOSTILE))
    assert told == [f"{shown}: could not be asked", f"  {shown}"]
    assert ET.fromstring(svg).findall(".//{*}script") == []


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=9), st.sampled_from([0.0, 1e-4, 1.0]))
def test_a_picture_stays_within_its_frame(angles, kept):
    """However near or far the answers lie."""
    root = ET.fromstring(picture([report("m", draws(*angles, kept=kept))]))
    width = float(root.get("width") or 0)
    bars = [bar for bar in root.findall(".//{*}rect") if bar.get("x") is not None]
    assert len(bars) >= len(TEXTS)
    for bar in bars:
        assert 0 <= float(bar.get("x") or -1)
        assert float(bar.get("x") or 0) + float(bar.get("width") or 0) <= width
        assert float(bar.get("height") or -1) > 0


def test_a_picture_that_cannot_be_written_is_told_at_once(fake_openai, tmp_path):
    """Before anybody is asked, and by another exit code than drift."""
    config = drift_config(tmp_path, fake_openai.base_url)
    words = ["drift", "-c", config, "--picture", tmp_path / "none" / "x.svg"]
    assert "cannot be written" in gateway(*words, code=3).stderr
    assert fake_openai.calls == 0


# A real model


@pytest.mark.engine
def test_the_bundled_model_is_steady(tmp_path):
    """It has one vector for a text, whatever is asked beside it: no noise, no drift."""
    config = tmp_path / "local.toml"
    store = re.sub(r"(?m)^store = .*$", f'store = "{at(tmp_path / "cache.db")}"', LOCAL)
    config.write_text(store)
    [found] = drift("-c", config, "--times", "3")
    assert (found["verdict"], found["noise"], found["distance"]) == ("steady", 0.0, 0.0)
    assert found["width"] == 384
