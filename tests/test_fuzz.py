"""A little of every target of tests.heavy.fuzz, and that it finds what there is to be found."""

import random
from base64 import b64encode

import pytest

from tests.heavy import fuzz
from tests.heavy.fuzzing.child import FoundError, blindly, watched
from tests.heavy.fuzzing.mutations import LARGEST, mutate
from tests.heavy.fuzzing.targets import NAMES, load

INPUTS = 400


ENGINES = [pytest.param(name, marks=pytest.mark.engine) for name in NAMES if name == "engine"]


@pytest.mark.parametrize("name", [*(name for name in NAMES if name != "engine"), *ENGINES])
def test_only_documented_errors_come_out(name):
    """Sound inputs, and some hundreds that were made of them: nothing else is raised."""
    if name == "engine":
        pytest.importorskip("jinja2", reason="Jinja is missing (extra [local])")
    target, chance = load(name), random.Random(1)
    known = list(target.seeds)
    for data in known:
        target.try_one(data)
    for _ in range(INPUTS):
        data = mutate(chance.choice(known), target.words, chance)
        target.try_one(data)
        known.append(data)


def test_inputs_differ_and_stay_small():
    """The same numbers make the same inputs; most of them are new, none is too large."""
    made = [
        mutate(b'1{"a": [1, {"b": "c"}]}', [b"word"], random.Random(seed)) for seed in range(500)
    ]
    again = [
        mutate(b'1{"a": [1, {"b": "c"}]}', [b"word"], random.Random(seed)) for seed in range(500)
    ]
    assert made == again
    assert len(set(made)) > 250
    assert max(map(len, made)) <= LARGEST
    assert any(b"word" in data for data in made)


def test_what_is_raised_is_found_with_its_input():
    """So that it can be tried again."""

    def breaks(data):
        assert not data.startswith(b"{")

    wrong = b'{"a": 1}'
    with pytest.raises(AssertionError) as found:
        blindly(breaks, [b"a", wrong], (), 1.0, seed=1)
    assert found.value.__notes__ == [f"Base64: {b64encode(wrong).decode()}"]


def test_what_takes_long_is_found(monkeypatch):
    """Processor time counts: a busy machine is nobody's fault."""
    monkeypatch.setattr("tests.heavy.fuzzing.child.SLOWEST", 0.05)

    def slow(data):
        sum(range(len(data)))

    watched(slow)(b"x")
    with pytest.raises(FoundError, match=r"took 0\.\d s"):
        watched(slow)(b"x" * 20_000_000)


def test_the_command_fuzzes_in_a_process_of_its_own(tmp_path):
    """Led by what inputs reach where atheris is installed, blindly elsewhere."""
    told = fuzz.fuzz("record", 1.0, 1, tmp_path)
    assert told.startswith("record: ")
    assert any((tmp_path / "record").iterdir())
