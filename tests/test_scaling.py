"""The scaling run counts what is true of fleets, and the page says what it counted."""

import io
import shutil

import msgspec
import pytest

from benchmarks import scaling
from benchmarks.fleet import Ran, Traffic, expected
from benchmarks.fleet import run as play
from benchmarks.progress import Say
from benchmarks.rounds import Plan
from benchmarks.scaling_page import PAGE, filled, read, tables
from benchmarks.scaling_picture import draw
from benchmarks.setting import Setting
from benchmarks.weights import WIDTHS

SMALL = Traffic(requests=1_000, texts=300, exponent=0.9, connections=12, memory=30)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two gateways on one Redis, and two by themselves."""
    redis = shutil.which("redis-server")
    if redis is None:
        pytest.skip("no `redis-server` command (Debian, Ubuntu: apt-get install redis-server)")
    setting = Setting(Plan(1, 0.1), Say(io.StringIO()), False, None, None)
    return [
        play(setting, tmp_path_factory.mktemp("fleet"), redis, 2, SMALL, shared=shared)
        for shared in (True, False)
    ]


def test_a_fleet_on_one_redis_asks_for_a_text_once(ran):
    """But for those that two gateways wanted at the same moment; alone each asks for itself."""
    together, alone = ran
    assert together.different <= together.answered.upstream < 1.1 * together.different
    assert alone.answered.upstream > 1.3 * alone.different
    assert together.answered.store > 0
    assert alone.answered.store == 0


def test_the_model_says_what_a_fleet_does(ran):
    """Each part of the requests within six hundredths: that of few requests is a draw of luck."""
    for one in ran:
        counted, of_model = zip(*one.parts, strict=True)
        assert sum(counted) == SMALL.requests
        assert sum(of_model) == pytest.approx(SMALL.requests)
        assert counted == pytest.approx(of_model, abs=0.06 * SMALL.requests)


def test_what_was_counted_can_be_kept(ran):
    """It is read as it was written."""
    assert msgspec.json.decode(msgspec.json.encode(ran), type=list[Ran]) == ran


def test_the_model_of_a_fleet_that_shares_nothing_has_no_store():
    """And with a memory for every text, one gateway asks for what a store would ask for."""
    roomy = msgspec.structs.replace(SMALL, memory=SMALL.texts)
    alone, together = (expected(roomy, 1, shared=shared) for shared in (False, True))
    assert (alone.store, together.store) == (0.0, pytest.approx(0.0))
    assert alone.upstream == pytest.approx(together.upstream)


def test_the_page_says_what_was_measured():
    """Its tables are those of the figures that are kept beside its picture."""
    page = PAGE.read_text()
    made = tables(read())
    assert filled(page, made) == page
    assert [name for name in made if f"<!-- figures: {name} -->" not in page] == []


def test_the_figures_are_of_all_that_the_page_tells():
    """Every fleet, and every width of a vector."""
    figures = read()
    assert [(one.gateways, one.shared) for one in figures.ran] == list(scaling.FLEETS)
    assert [weight.width for weight in figures.weights] == list(WIDTHS)


def test_a_table_that_is_out_of_date_is_found():
    """Only what stands between the comments is replaced."""
    page = "before\n<!-- figures: x -->\n\n| old |\n<!-- end -->\nafter\n"
    assert filled(page, {"x": "| new |"}) == (
        "before\n<!-- figures: x -->\n\n| new |\n\n<!-- end -->\nafter\n"
    )


def test_the_picture_shows_every_fleet(tmp_path):
    """As text, which can be searched; and twice the same."""
    figures = read()
    for name in ("one.svg", "two.svg"):
        draw(figures.texts, figures.kept, figures.traffic, figures.ran, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    assert [one.name for one in figures.ran if one.name not in drawn] == []
