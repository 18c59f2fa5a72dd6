"""JavaScript's clients in a chat: OpenAI's SDK for Node, and the AI SDK.

One process for each; they write what came of their calls, and it is judged here.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.chat_served import HAS_LLAMA, TINY, UPSTREAM, Served, chat_gateway

pytestmark = pytest.mark.engine

NODE = Path(__file__).parent / "node"
PARAMETERS = {
    "type": "object",
    "properties": {"planet": {"enum": ["Mars", "Venus"]}},
    "required": ["planet"],
    "additionalProperties": False,
}
PLACE = {
    "type": "object",
    "properties": {"planet": {"enum": ["Mars", "Venus"]}, "landed": {"type": "boolean"}},
    "required": ["planet", "landed"],
    "additionalProperties": False,
}
PROMPT = "Where is «Mars» 火星?"
ASKED = {
    "models": [UPSTREAM, TINY],
    "prompt": PROMPT,
    "messages": [{"role": "user", "content": PROMPT}],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}],
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not HAS_LLAMA:
        pytest.skip("llama-cpp-python is missing (extra [local])")
    with chat_gateway(tmp_path_factory.mktemp("chat")) as served:
        yield served


def run(script: str, served: Served) -> Any:
    """Return what a script writes."""
    node = shutil.which("node") or pytest.skip("Node.js is not installed")
    if not (NODE / "node_modules" / "ai").is_dir():
        pytest.skip("the SDKs for Node are not installed: npm ci --prefix tests/node")
    ran = subprocess.run(
        [node, str(NODE / script), served.base_url],
        input=json.dumps(ASKED),
        capture_output=True,
        encoding="utf-8",
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)


def test_openais_sdk_for_node_chats(served: Served) -> None:
    """Whole and streamed, with tools and in JSON: one text for one seed, errors by their class."""
    written = run("chat.mjs", served)
    assert ASKED["models"] == list(written["answers"])
    for answer in written["answers"].values():
        assert answer["whole"]
        assert answer["fingerprint"]
        assert "fwd=miss; stored" in answer["cache"]
        streamed = answer["streamed"]
        assert [answer["whole"]] * 2 == [streamed["text"], answer["helper"]]
        assert streamed["usage"]["total_tokens"] > streamed["usage"]["completion_tokens"] > 0
        assert answer["unseeded"]["chunks"] > 3
        assert not answer["unseeded"].get("usage")
        for call in answer["calls"]:
            assert call["name"] == "weather"
            jsonschema.validate(json.loads(call["arguments"]), PARAMETERS)
        assert answer["heard"]["text"]
        for parsed in answer["parsed"]:
            jsonschema.validate(parsed, PLACE)
    unknown, empty = ["NotFoundError", 404, "model"], ["BadRequestError", 400, "messages"]
    assert [unknown, empty] == written["errors"]


def test_the_ai_sdk_chats(served: Served) -> None:
    """`streamText` and `generateText` agree, call tools, go on with results, and give objects."""
    written = run("ai_sdk.mjs", served)
    assert ASKED["models"] == list(written["answers"])
    for answer in written["answers"].values():
        assert answer["whole"]
        assert answer["whole"] == "".join(answer["parts"])
        assert len(answer["parts"]) > 3
        assert answer["tokens"][0] == answer["tokens"][1] > 0
        assert answer["finished"][0] == answer["finished"][1]
        for result in answer["results"]:
            jsonschema.validate(result["input"], PLACE)
            assert f"20 degrees on {result['input']['planet']}" == result["output"]
        for given in answer["objects"]:
            jsonschema.validate(given, PLACE)
    assert ["tool-calls", "stop"] == written["steps"]
    assert written["error"] == 404
