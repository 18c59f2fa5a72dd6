"""The numbers of the page are those that numpy finds in what the gateway answered."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.running import one_model

CLOSE = 1e-6
TEXTS = [f"Text number {n}, {'x' * n}" for n in range(7)]
HOSTILE = "It's \"quoted\" \\ $HOME `id` $(id) %s \N{SNOWMAN} \N{GRINNING FACE} '; echo no"


@pytest.fixture(scope="module")
def whole(served_openai, module_gateway):
    """A gateway whose model `m` has any dimensions."""
    return module_gateway(one_model(served_openai.base_url, model='dimensions = "any"'))


def matrix(values: list[float], rows: int) -> np.ndarray:
    return np.array(values).reshape(rows, -1)


def cosines(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:2], [*TEXTS, TEXTS[0]], TEXTS[:1]])
@pytest.mark.parametrize("dimensions", ["", "8"])
def test_similarity_and_map_are_numpys(whole, visit, texts, dimensions):
    """Cosines, principal components up to their sign, norms and tokens; also of equal texts."""
    opened = visit(whole.address)
    opened.run_playground(*texts, dimensions=dimensions)
    # Each line is a request of its own.
    answers = {exchange.texts[0]: exchange for exchange in opened.exchanges}
    rows = np.concatenate([answers[text].vectors for text in texts]).astype(np.float64)
    assert rows.shape == (len(texts), int(dimensions or 32))

    heatmap = matrix(opened.values("#heatmap [role=gridcell]"), len(texts))
    assert np.abs(heatmap - cosines(rows)).max() < CLOSE
    points = matrix(opened.values("#map-table td"), len(texts))
    assert_same_axes(points, rows)
    norms = opened.values("#origins td[data-name=Norm]")
    assert np.abs(np.array(norms) - np.linalg.norm(rows, axis=1)).max() < CLOSE
    tokens = opened.values("#origins td[data-name=Tokens]")
    assert tokens == [answers[text].tokens for text in texts]


def assert_same_axes(points: np.ndarray, rows: np.ndarray) -> None:
    """Compare with the singular value decomposition; missing axes are 0, signs may differ."""
    left, values, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    axes = np.zeros((len(rows), 2))
    known = min(2, len(values))
    axes[:, :known] = (left * values)[:, :known]
    for ours, numpys in zip(points.T, axes.T, strict=True):
        assert min(np.abs(ours - numpys).max(), np.abs(ours + numpys).max()) < CLOSE


def test_fifty_texts_are_as_exact(whole, visit):
    """Of the most that the page takes, whose axes are close to each other in length."""
    texts = [f"One of fifty: {n}" for n in range(50)]
    opened = visit(whole.address)
    opened.run_playground(*texts)
    answers = {exchange.texts[0]: exchange for exchange in opened.exchanges}
    rows = np.concatenate([answers[text].vectors for text in texts])
    heatmap = matrix(opened.values("#heatmap [role=gridcell]"), 50)
    assert np.abs(heatmap - cosines(rows)).max() < CLOSE
    assert_same_axes(matrix(opened.values("#map-table td"), 50), rows.astype(np.float64))


def test_where_each_text_came_from_is_what_the_gateway_said(fake_openai, gateway, visit):
    """At first the model, for one of two equal texts too; then memory, for both."""
    opened = visit(gateway(one_model(fake_openai.base_url)).address)
    opened.run_playground("one", "two", "one")
    first = opened.page.locator("#origins td[data-name=From]").all_inner_texts()
    said = [re.search(r'detail="([a-z-]+)=1', exchange.status) for exchange in opened.exchanges]
    names = {"upstream": "model", "in-flight": "a call under way", "memory": "memory"}
    assert sorted(first) == sorted(names[found[1]] for found in said)
    assert first.count("model") == 2
    opened.run_playground("one", "two", "one")
    again = opened.page.locator("#origins td[data-name=From]").all_inner_texts()
    assert again == ["memory"] * 3
    assert opened.page.inner_text("#playground-said").endswith("3 from memory")


@pytest.mark.parametrize("noise", [0.0, 3e-4])
def test_the_comparison_is_numpys(fake_openai, gateway, visit, noise):
    """Of draws and kept answers, of a model that is exact and of one that is not."""
    fake_openai.noise = noise
    opened = visit(gateway(one_model(fake_openai.base_url)).address)
    opened.compare(*TEXTS[:3], draws="4")
    fresh = np.stack([e.vectors for e in opened.exchanges if e.fresh])
    kept = np.stack([e.vectors for e in opened.exchanges if not e.fresh])
    assert (len(fresh), len(kept)) == (4, 5)
    assert_compared(opened, fresh, kept)
    assert (fresh == fresh[0]).all() == (noise == 0)
    verdicts = opened.page.locator("#repro-verdicts .chip").all_inner_texts()
    assert verdicts == [
        "not the same bits" if noise else "equal, bit for bit",
        "equal, bit for bit",
    ]


def assert_compared(opened, fresh: np.ndarray, kept: np.ndarray) -> None:
    def column(name: str) -> np.ndarray:
        return np.array(opened.values(f'#repro-table td[data-name="{name}"]'))

    def least(draws: np.ndarray) -> list[float]:
        return [cosines(draws[:, text]).min() for text in range(draws.shape[1])]

    wide, widened = fresh.astype(np.float64), kept.astype(np.float64)
    assert np.abs(column("Draws differ by") - np.ptp(wide, 0).max(1)).max() < 1e-9
    assert np.abs(column("Their least cosine") - least(fresh)).max() < 1e-9
    apart = np.abs(wide - widened[0]).max((0, 2))
    assert np.abs(column("To the kept one") - apart).max() < 1e-9
    aside = [cosines(np.vstack([kept[:1, t], fresh[:, t]]))[0].min() for t in range(3)]
    assert np.abs(column("Cosine to that") - aside).max() < 1e-9
    assert (column("Kept differ by") == 0).all()
    assert (kept == kept[0]).all()


def test_a_seed_and_dimensions_go_out_as_they_were_written(whole, visit):
    """All 64 bits of the seed, which a number of JavaScript would not hold."""
    opened = visit(whole.address)
    opened.run_playground("seeded", seed=str(2**63 - 1), dimensions="4")
    asked = next(r for r in opened.requests if r.url.endswith("/v1/embeddings"))
    assert asked.post_data == (
        '{"model":"m","input":["seeded"],"dimensions":4,"encoding_format":"base64",'
        f'"seed": {2**63 - 1}}}'
    )


def test_what_is_shown_to_copy_does_the_same(whole, visit):
    """The command and the script run, quotes and all, and have the page's vectors."""
    opened = visit(whole.address)
    opened.run_playground(HOSTILE, "plain", seed=str(-(2**63)), dimensions="4")
    answers = {exchange.texts[0]: exchange for exchange in opened.exchanges}
    wanted = np.stack([answers[text].vectors[0] for text in (HOSTILE, "plain")])

    opened.page.click("#playground summary")
    command = opened.page.inner_text("#playground-curl")
    script = opened.page.inner_text("#playground-python")
    data = json.loads(output("bash", "-c", command))["data"]
    assert (np.array([item["embedding"] for item in data], np.float32) == wanted).all()
    script += "import json\nprint(json.dumps(vectors))"
    assert (np.array(json.loads(output(sys.executable, "-c", script)), np.float32) == wanted).all()


def output(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def test_the_numbers_of_an_exchange_are_read_as_sent(whole, visit):
    """The tests' own reading of base64 is the one that the floats of the same texts confirm."""
    opened = visit(whole.address)
    opened.run_playground(*TEXTS[:2])
    for exchange in opened.exchanges:
        assert exchange.vectors.tolist() == whole.vectors(exchange.texts)
