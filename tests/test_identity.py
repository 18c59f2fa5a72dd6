"""What may share a vector: the same model at the same place, or what the config calls one space."""

import pytest

TWO = """
    [upstreams.one]
    kind = "openai"
    base_url = "{address}/v1"
    {one}
    [upstreams.two]
    kind = "openai"
    base_url = "{address}{path}"
    {two}
    [models.a]
    upstreams = ["one"]
    {a}
    [models.b]
    upstreams = ["two"]
    {b}
"""
SAME = 'upstream_model = "same"'


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({"a": SAME, "b": SAME}, 1),
        ({"a": 'upstream_model = "b"'}, 1),
        ({}, 2),
        ({"a": SAME, "b": SAME, "path": ""}, 2),
        ({"a": SAME, "b": SAME, "two": 'query = { api-version = "2" }'}, 2),
        ({"a": SAME, "b": f'{SAME}\nprefix = "query: "'}, 2),
        ({"a": 'space = "s"', "b": 'space = "s"', "path": ""}, 1),
        ({"a": 'space = "s"', "b": 'space = "t"', "path": ""}, 2),
        ({"a": f'{SAME}\nspace = "s"', "b": SAME}, 2),
    ],
    ids=["same", "by-name", "names", "places", "queries", "prefixes", "space", "spaces", "half"],
)
def test_only_what_is_the_same_model_shares_a_vector(gateway, fake_openai, changes, calls):
    """P6: another address, name or query may be another model; a space is the config's word."""
    address = fake_openai.base_url.removesuffix("/v1")
    parts = {"path": "/v1", "one": "", "two": "", "a": "", "b": ""} | changes
    fake_openai.noise = 3e-4
    running = gateway(TWO.format(address=address, **parts))
    first, second = running.vectors("x", "a"), running.vectors("x", "b")
    assert sum(text.endswith("x") for text in fake_openai.texts) == calls
    assert (first == second) == (calls == 1)
