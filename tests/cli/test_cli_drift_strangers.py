"""`gateway drift` with servers that are no gateway of ours, and readers that read no further."""

import os
from base64 import b64encode

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.drift.canaries import TEXTS
from tests.cli.commands import gateway, started
from tests.cli.drifting import another_model, drift, drift_config
from tests.served import serve
from tests.upstream_behaviours import well

HIT = {"cache-status": 'gateway; hit; detail="store=5"'}
THOUSANDS = "9" * 5000
"""Digits: more than Python reads."""
UNIT = np.eye(4, dtype="<f4")[0]


def stranger(*rows, headers=HIT, models=("m",)):
    """Return a server that answers whatever it is asked with these vectors."""
    data = [
        {"index": index, "embedding": b64encode(row.astype("<f4").tobytes()).decode()}
        for index, row in enumerate(rows)
    ]

    async def embed(_: Request) -> Response:
        return JSONResponse({"data": data}, headers=headers)

    async def listed(_: Request) -> Response:
        return JSONResponse({"data": [{"id": model, "task": "embedding"} for model in models]})

    routes = [
        Route("/v1/embeddings", embed, methods=["POST"]),
        Route("/v1/models", listed),
    ]
    return serve(Starlette(routes=routes))


@pytest.mark.parametrize(
    "rows",
    [
        [UNIT + np.nan] * len(TEXTS),
        [UNIT + np.inf] * len(TEXTS),
        [UNIT * 0] * len(TEXTS),
        [UNIT * 2] * len(TEXTS),
        [UNIT[:width] for width in range(len(TEXTS))],
    ],
    ids=["no numbers", "infinite", "zeros", "too long", "many widths"],
)
def test_what_is_no_unit_vector_is_not_compared(rows):
    """Nothing follows from its distances: neither that all is well, nor that a model drifted."""
    with stranger(*rows) as served:
        [found] = drift("m", "--url", f"{served.address}/v1", code=3)
    assert found["why"] == "the server's vectors are no unit vectors of one width"


@pytest.mark.parametrize("age", [THOUSANDS, "\xb2", "-1", ""])
def test_an_age_that_is_none_is_none(age):
    """What is compared is what matters."""
    with stranger(*[UNIT] * len(TEXTS), headers=HIT | {"age": age}) as served:
        [found] = drift("m", "--url", f"{served.address}/v1")
    assert (found["verdict"], found["kept_seconds"]) == ("steady", 0)


def test_a_count_that_is_none_is_none():
    """It says nothing of where the vectors came from."""
    headers = {"cache-status": f'gateway; hit; detail="store={THOUSANDS}"'}
    with stranger(*[UNIT] * len(TEXTS), headers=headers) as served:
        [found] = drift("m", "--url", f"{served.address}/v1", code=3)
    assert "are not kept" in found["why"]


def test_names_that_would_steer_a_terminal_are_not_told():
    """No gateway has such ones."""
    with stranger(models=["m", "\x1b]0;mine\x07"]) as served:
        said = gateway("drift", "--url", f"{served.address}/v1", code=3).stderr
    assert said == "error: the server lists models whose names cannot be printed\n"


@pytest.mark.parametrize("words", [[], ["--json"]], ids=["a table", "json"])
@pytest.mark.parametrize(("behaviour", "code"), [(well, 0), (another_model, 1)])
def test_who_reads_no_further_learns_how_models_stand(
    tmp_path, fake_openai, words, behaviour, code
):
    """As in `gateway drift | grep -q steady`: else a closed pipe would say that a model drifted."""
    config = drift_config(tmp_path, fake_openai.base_url)
    drift("-c", config)
    fake_openai.always(behaviour)
    reading, writing = os.pipe()
    os.close(reading)
    with started("drift", "-c", config, *words, stdout=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, b"")
