"""OpenAI's wire format: every body that is right is understood, every other one named by field."""

import json

import pytest

from gateway.embeddings import Embedded
from gateway.errors import InvalidRequestError
from gateway.schemas import (
    MAX_INPUTS,
    Model,
    embedding_response,
    model_response,
    models_response,
    parse_embedding_request,
)


def parse(given_input="x", **fields):
    return parse_embedding_request(
        json.dumps({"model": "m", "input": given_input} | fields).encode()
    )


def refusal(body):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    with pytest.raises(InvalidRequestError) as caught:
        parse_embedding_request(body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [
        ("x", ["x"]),
        (["x"], ["x"]),
        (["x", "y", "x"], ["x", "y", "x"]),
        ("", [""]),
        (["", ""], ["", ""]),
        ([1, 2, 3], [(1, 2, 3)]),
        ([0], [(0,)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
        ([4294967295], [(4294967295,)]),
        (["x"] * MAX_INPUTS, ["x"] * MAX_INPUTS),
        ([[1]] * MAX_INPUTS, [(1,)] * MAX_INPUTS),
        (list(range(5000)), [tuple(range(5000))]),
        ("\u0000é\U0001f600", ["\u0000é\U0001f600"]),
    ],
)
def test_the_four_forms_of_input_become_one_list(given_input, inputs):
    """A text, texts, ids, lists of ids; up to 2,048 of them, and one list of ids of any length."""
    assert list(parse(given_input).inputs) == inputs


def test_defaults_are_openais():
    """Floats, the full width, no seed, and nothing beyond."""
    asked = parse()
    assert (asked.model, asked.base64, asked.dimensions, asked.seed) == ("m", False, None, None)
    assert (asked.user, dict(asked.extra)) == (None, {})


@pytest.mark.parametrize(
    "field", ["encoding_format", "dimensions", "user", "seed", "input_type", "whatever"]
)
def test_null_is_absent(field):
    """SDKs send null for what was not given; it means nothing at all."""
    assert parse(**{field: None}) == parse()


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"encoding_format": "base64"}, "base64", True),
        ({"encoding_format": "float"}, "base64", False),
        ({"dimensions": 1}, "dimensions", 1),
        ({"seed": 0}, "seed", 0),
        ({"seed": 2**63 - 1}, "seed", 2**63 - 1),
        ({"seed": -(2**63)}, "seed", -(2**63)),
        ({"user": "u"}, "user", "u"),
        (
            {"input_type": "query", "x": {"y": [1]}},
            "extra",
            {"input_type": "query", "x": {"y": [1]}},
        ),
    ],
)
def test_every_field_arrives(fields, name, value):
    """Each optional field of the API, the seed of ours, and the rest as it was."""
    assert getattr(parse(**fields), name) == value


M = {"model": "m"}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": "x"}, "model", "you must provide a model parameter"),
        ({"input": "x", "model": None}, "model", "you must provide a model parameter"),
        ({"input": "x", "model": ""}, "model", "you must provide a model parameter"),
        ({"input": "x", "model": 1}, "model", "'model'"),
        ({"input": "x", "model": ["m"]}, "model", "'model'"),
        (M, "input", "you must provide an input parameter"),
        (M | {"input": None}, "input", "you must provide an input parameter"),
        (M | {"input": []}, "input", "must not be an empty array"),
        (M | {"input": [[]]}, "input", "'input[0]' must not be an empty array of token ids"),
        (M | {"input": [[1], [], [2]]}, "input", "'input[1]'"),
        (M | {"input": 7}, "input", "'input'"),
        (M | {"input": 7.5}, "input", "'input'"),
        (M | {"input": True}, "input", "'input'"),
        (M | {"input": {"text": "x"}}, "input", "'input'"),
        (M | {"input": ["x", 1]}, "input", "'input[1]' is a number where 'input[0]' is a string"),
        (
            M | {"input": [1, 2, "x"]},
            "input",
            "'input[2]' is a string where 'input[0]' is a number",
        ),
        (M | {"input": ["x", [1]]}, "input", "'input[1]' is an array where 'input[0]' is a string"),
        (M | {"input": [[1], 2]}, "input", "'input[1]' is a number where 'input[0]' is an array"),
        (M | {"input": ["x", None]}, "input", "'input[1]'"),
        (M | {"input": ["x", {}]}, "input", "'input[1]'"),
        (M | {"input": [1, 2.0]}, "input", "'input[1]'"),
        (M | {"input": [1, True]}, "input", "'input[1]'"),
        (M | {"input": [[1], [2.5]]}, "input", "'input[1][0]'"),
        (M | {"input": [[1], [False]]}, "input", "'input[1][0]'"),
        (M | {"input": [[1], ["x"]]}, "input", "'input[1][0]'"),
        (M | {"input": [[[1]]]}, "input", "'input[0][0]'"),
        (M | {"input": [-1]}, "input", "'input' holds -1"),
        (M | {"input": [2**32]}, "input", "'input' holds 4294967296"),
        (M | {"input": [1, 10**30]}, "input", "which is no token id"),
        (M | {"input": [[1], [5, -7]]}, "input", "'input[1]' holds -7"),
        (M | {"input": ["x"] * 2049}, "input", "'input' has 2049 items; at most 2048"),
        (M | {"input": [[1]] * 2049}, "input", "'input' has 2049 items; at most 2048"),
        (M | {"input": "x", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        (M | {"input": "x", "encoding_format": ""}, "encoding_format", "'float' or 'base64'"),
        (M | {"input": "x", "encoding_format": 1}, "encoding_format", "'encoding_format'"),
        (M | {"input": "x", "dimensions": 0}, "dimensions", ">= 1"),
        (M | {"input": "x", "dimensions": -1}, "dimensions", ">= 1"),
        (M | {"input": "x", "dimensions": 1.5}, "dimensions", "'dimensions'"),
        (M | {"input": "x", "dimensions": "8"}, "dimensions", "'dimensions'"),
        (M | {"input": "x", "dimensions": True}, "dimensions", "'dimensions'"),
        (M | {"input": "x", "seed": 2**63}, "seed", "'seed'"),
        (M | {"input": "x", "seed": -(2**63) - 1}, "seed", "'seed'"),
        (M | {"input": "x", "seed": 1.5}, "seed", "'seed'"),
        (M | {"input": "x", "seed": "1"}, "seed", "'seed'"),
        (M | {"input": "x", "seed": False}, "seed", "'seed'"),
        (M | {"input": "x", "user": 5}, "user", "'user'"),
        ([], None, "must be a JSON object"),
        ("x", None, "must be a JSON object"),
        (None, None, "must be a JSON object"),
        (1, None, "must be a JSON object"),
        (b"", None, "could not parse the JSON"),
        (b"{", None, "could not parse the JSON"),
        (b"{'model':'m'}", None, "could not parse the JSON"),
        (b'{"model":"m","input":"x"} trailing', None, "could not parse the JSON"),
        (b'{"model":"m","input":"x",}', None, "could not parse the JSON"),
        (b'\xef\xbb\xbf{"model":"m","input":"x"}', None, "could not parse the JSON"),
        (b'{"model":"m","input":"\xff"}', None, "could not parse the JSON"),
        (b'{"model":"m","input":"\\ud800"}', None, "could not parse the JSON"),
        (b'{"model":"m","input":["a","\\udc00\\ud800"]}', None, "could not parse the JSON"),
        (b'{"model":"m","input":"\xed\xa0\x80"}', None, "could not parse the JSON"),
        (b'{"model":"m","input":NaN}', None, "could not parse the JSON"),
        (b"[" * 100_000, None, "must be a JSON object"),
        (b'{"model":"m","input":' + b"[" * 100_000, "input", "'input[0][0]'"),
        (b'{"a":' * 100_000, None, "could not parse the JSON"),
    ],
)
def test_every_mistake_is_a_400_that_names_the_field(body, param, words):
    """The parameter, the item where there is one, and what is wrong with it."""
    error = refusal(body)
    assert param == error.param
    assert words in error.message


def test_too_many_ids_are_openais_error():
    """300,000 tokens a request, as type and code say."""
    error = refusal(M | {"input": [[1] * 200_000, [1] * 109_209]})
    assert error.message == "Requested 309209 tokens, max 300000 tokens per request"
    assert ("max_tokens_per_request", "max_tokens_per_request") == (error.type, error.code)
    assert len(parse([1] * 300_000).inputs[0]) == 300_000


def test_messages_quote_no_text():
    """P8: what a client sent is not sent back, even where it is wrong."""
    canary = "the cat is out of the bag"
    for body in (
        M | {"input": [canary, 1]},
        M | {"input": {"text": canary}},
        M | {"input": [[1], [canary]]},
        M | {"input": canary, "seed": canary},
        M | {"input": canary, "encoding_format": canary},
        {"input": canary},
    ):
        assert canary not in refusal(body).message


def test_the_answer_is_openais():
    """All four keys, the index of each item, and the vectors as they were given."""
    embedded = Embedded('m"é', [b"[1.0]", b'"AACAPw=="', b"[3]"], 7, [], 7, {}, {})
    assert json.loads(b"".join(embedding_response(embedded))) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0]},
            {"object": "embedding", "index": 1, "embedding": "AACAPw=="},
            {"object": "embedding", "index": 2, "embedding": [3]},
        ],
        "model": 'm"é',
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_models_have_openais_keys_and_ours():
    """What OpenAI's SDK needs is there in every model, known or not."""
    model = Model(id="m", owned_by="up", dimensions=8)
    said = json.loads(model_response(model))
    assert {"id": "m", "object": "model", "created": 0, "owned_by": "up"}.items() <= said.items()
    assert (said["dimensions"], said["pooling"], said["aliases"]) == (8, None, [])
    assert json.loads(models_response([model])) == {"object": "list", "data": [said]}
