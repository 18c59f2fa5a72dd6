"""A model that runs here and one elsewhere, of one space: a real engine, and a gateway with one."""

from contextlib import ExitStack

import httpx2
import pytest

from tests.processes import LOCAL, gateway_process

pytestmark = pytest.mark.engine

CONFIG = """
[server]
log_format = "json"
[upstreams.there]
kind = "openai"
base_url = "{url}"
[upstreams.here]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
[models."all-minilm-l6-v2"]
task = "embedding"
space = "minilm"
upstreams = ["there", "here"]
"""
MODEL = "all-minilm-l6-v2"


def vector(base_url, text):
    body = {"model": MODEL, "input": text, "encoding_format": "base64"}
    answer = httpx2.post(f"{base_url}/embeddings", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]["embedding"]


def upstreams(base_url):
    told = httpx2.get(f"{base_url}/models/{MODEL}", timeout=30).json()["upstreams"]
    return {each["name"]: each for each in told}


def test_a_local_model_stands_in_for_the_same_one_elsewhere():
    """Their vectors are one; when the other machine is gone, nobody notices."""
    with ExitStack() as running, ExitStack() as elsewhere:
        there = elsewhere.enter_context(gateway_process(LOCAL))
        here = running.enter_context(gateway_process(CONFIG.format(url=there.base_url)))
        first = vector(here.base_url, "a text")
        assert first == vector(there.base_url, "a text")
        here.wait_for(
            lambda: len(here.events("upstream agrees with its space")) == 2,
            timeout=30,
            what="that both agree",
        )
        told = upstreams(here.base_url)
        assert [told[name]["state"] for name in ("there", "here")] == ["ready", "ready"]
        assert told["here"]["similarity"] > 0.9999
        elsewhere.close()
        assert vector(here.base_url, "another text")
