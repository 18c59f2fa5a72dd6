"""How far fresh vectors lie from kept ones, and what that is called."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drift.canaries import DRAWS, TEXTS
from gateway.drift.comparison import CEILING, FACTOR, FARTHEST, FLOOR, apart, compare
from gateway.vectors import unit

WIDTH = 64


def draws(count, spread, seed, width=WIDTH):
    """Return draws of a model whose every answer lies about so far from what it means."""
    chance = np.random.default_rng(seed)
    means = [unit(chance.standard_normal(width).astype("<f4")) for _ in TEXTS]
    return [[jittered(mean, spread, chance) for mean in means] for _ in range(count)]


def jittered(mean, spread, chance):
    """Return a unit vector at a distance (1 - cosine) of about `spread` from `mean`."""
    noise = chance.standard_normal(len(mean)) * np.sqrt(2 * spread / len(mean))
    return unit((mean + noise).astype("<f4")).tobytes()


def cosine(one, other):
    """Return what numpy says of the cosine, in float64."""
    first, second = (np.frombuffer(each, "<f4").astype(float) for each in (one, other))
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


seeds = st.integers(0, 2**32)


@given(seeds, st.integers(0, DRAWS - 1), st.floats(0, 0.2))
def test_a_kept_draw_is_steady_whatever_the_noise(seed, which, spread):
    """The bits of any kept draw are found again as such, with no difference at all."""
    kept = draws(DRAWS, spread, seed)
    found = compare(kept, [kept[which]])
    assert (found.verdict, found.distance) == ("steady", 0.0)
    assert all((text.least, text.mean, text.most) == (0, 0, 0) for text in found.texts)


@given(seeds, st.floats(1e-12, 0.3))
def test_the_figures_are_numpys(seed, spread):
    """Distance, noise and differences of components equal what numpy computes in float64."""
    *kept, fresh = draws(DRAWS + 1, spread, seed)
    found = compare(kept, [fresh])
    for place, text in enumerate(found.texts):
        nearest = max((draw[place] for draw in kept), key=lambda old: cosine(old, fresh[place]))
        assert text.distance == pytest.approx(1 - cosine(nearest, fresh[place]), abs=2e-7)
        assert text.cosine == 1 - text.distance
        old, new = (np.frombuffer(each, "<f4") for each in (nearest, fresh[place]))
        if len({apart(draw[place], fresh[place]) for draw in kept}) == DRAWS:
            differences = abs(old.astype(float) - new)
            assert text.most == differences.max()
            assert text.mean == pytest.approx(differences.mean())
            assert text.least == differences.min()
    pairs = [(one, other) for one in kept for other in kept]
    noise = max(1 - cosine(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
    assert found.noise == pytest.approx(noise, abs=2e-7)
    assert found.distance == max(text.distance for text in found.texts)
    assert found.threshold == min(max(FLOOR, FACTOR * found.noise), CEILING)


@given(seeds, st.floats(0, 0.1))
def test_noise_is_noise(seed, spread):
    """Another draw of a model that jitters, by as little or as much as it does, is no drift."""
    *kept, first, second = draws(DRAWS + 2, spread, seed)
    assert compare(kept, [first]).verdict != "drift"
    assert compare(kept, [first, second]).verdict != "drift"


@given(seeds, seeds, st.floats(0, 0.1))
def test_another_model_is_drift(seed, other, spread):
    """What means something else is drift, also behind as much jitter, and if only at times."""
    kept = draws(DRAWS, spread, seed)
    same, changed = draws(DRAWS + 1, spread, seed)[-1], draws(1, spread, other + 2**33)[0]
    assert compare(kept, [changed]).verdict == "drift"
    assert compare(kept, [same, changed]).verdict == "drift"


@given(seeds, st.floats(3e-3, 0.1))
def test_a_small_change_of_a_steady_model_is_drift(seed, change):
    """What always gave the same bits has changed where it does not, by more than the floor."""
    kept = [draws(1, 0, seed)[0]] * DRAWS
    chance = np.random.default_rng([seed, 1])
    far = [jittered(np.frombuffer(old, "<f4"), change, chance) for old in kept[0]]
    near = [jittered(np.frombuffer(old, "<f4"), FLOOR / 3, chance) for old in kept[0]]
    assert compare(kept, [far]).verdict == "drift"
    assert (compare(kept, [near]).verdict, compare(kept, [near]).noise) == ("noise", 0.0)


@given(seeds, st.permutations(range(DRAWS)))
def test_the_order_of_draws_does_not_matter(seed, order):
    """Verdict and distances are the same, whichever draw came first."""
    *kept, one, other = draws(DRAWS + 2, 0.01, seed)
    mixed = compare([kept[place] for place in order], [other, one])
    straight = compare(kept, [one, other])
    assert mixed.verdict == straight.verdict
    assert (mixed.distance, mixed.noise) == (straight.distance, straight.noise)


def test_one_text_that_changed_is_enough():
    """A model may be the same for English, and another one for code."""
    kept = draws(DRAWS, 0, 1)
    fresh = [*kept[0][:-1], draws(1, 0, 2)[0][-1]]
    found = compare(kept, [fresh])
    assert found.verdict == "drift"
    assert [text.distance == 0 for text in found.texts] == [True] * 4 + [False]


def test_another_width_is_drift():
    """Also where only one answer of several has it, in whichever direction."""
    kept = draws(DRAWS, 0, 1)
    narrow, wide = draws(1, 0, 1, width=WIDTH // 2)[0], draws(1, 0, 1, width=2 * WIDTH)[0]
    for fresh, width in (([narrow], WIDTH // 2), ([kept[0], wide], 2 * WIDTH)):
        found = compare(kept, fresh)
        assert (found.verdict, found.distance) == ("drift", FARTHEST)
        assert found.widths == (WIDTH, width)


def test_another_width_is_drift_whatever_the_noise():
    """Also of a model that says the opposite of what it said."""
    (one,) = draws(1, 0, 1)
    opposite = [(-np.frombuffer(vector, "<f4")).tobytes() for vector in one]
    found = compare([one, opposite], draws(1, 0, 1, width=WIDTH // 2))
    assert found.noise == pytest.approx(FARTHEST)
    assert found.verdict == "drift"


def test_opposite_vectors_are_as_far_as_can_be():
    """The scale of distances ends at 2, and the figures of such vectors are true ones too."""
    kept = draws(1, 0, 1)
    fresh = [(-np.frombuffer(vector, "<f4")).tobytes() for vector in kept[0]]
    found = compare(kept, [fresh])
    assert found.distance == pytest.approx(FARTHEST)
    assert found.texts[0].most == 2 * abs(np.frombuffer(kept[0][0], "<f4").astype(float)).max()


def test_the_smallest_difference_counts():
    """One bit of one component is no steadiness any more."""
    kept = draws(1, 0, 1)
    bits = bytearray(kept[0][0])
    bits[0] ^= 1
    found = compare(kept, [[bytes(bits), *kept[0][1:]]])
    assert (found.verdict, found.noise) == ("noise", 0.0)
    assert 0 < found.distance < 1e-12


@given(seeds, seeds, st.integers(0, DRAWS - 1))
def test_kept_draws_of_two_models_hide_no_third(seed, other, odd):
    """Where the model changed between two kept draws, the next change is still found."""
    kept = draws(DRAWS, 1e-4, seed)
    kept[odd] = draws(1, 1e-4, seed + 2**33)[0]
    assert compare(kept, draws(1, 1e-4, other + 2**34)).verdict == "drift"
