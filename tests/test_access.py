"""Who may do what: keys, their models, tenants that share nothing, and who sees the metrics."""

import httpx2
import openai
import pytest

from tests.running import one_model

KEYS = """
    [[keys]]
    name = "search"
    secret = "${env:SEARCH}"
    models = ["m", "text-*"]
    tenant = "search"
    [[keys]]
    name = "search-too"
    secret = "${env:SEARCH_TOO}"
    tenant = "search"
    [[keys]]
    name = "ops"
    secret = "${env:OPS}"
    tenant = "ops"
    admin = true
"""
SECRETS = {"SEARCH": "search-secret", "SEARCH_TOO": "second-secret", "OPS": "ops-secret-1"}


@pytest.fixture
def running(gateway, fake_openai):
    toml = one_model(fake_openai.base_url, rest=KEYS) + '[models.n]\nupstreams = ["fake"]'
    return gateway(toml, **SECRETS)


def bearer(name):
    return {"authorization": f"Bearer {SECRETS[name]}"}


def error(answer):
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()["error"]) == ["message", "type", "param", "code"]
    return answer.json()["error"]


@pytest.mark.parametrize("header", ["authorization", "api-key"])
def test_a_key_opens_the_door(running, header):
    """As OpenAI's SDKs send it and as Azure's do."""
    value = f"Bearer {SECRETS['SEARCH']}" if header == "authorization" else SECRETS["SEARCH"]
    assert running.embed("x", headers={header: value}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong-key-here"}, {"authorization": "Basic eDp5"}]
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models", "/v1/models/m", "/metrics"])
def test_without_one_it_is_a_401_in_openais_form(running, fake_openai, headers, path):
    """Wherever something is to be had; and nobody upstream is bothered."""
    method = "POST" if path.endswith("embeddings") else "GET"
    answer = running.http.request(
        method, path, headers=headers, content=b'{"model":"m","input":"x"}'
    )
    said = error(answer)
    assert (answer.status_code, said["code"]) == (401, "invalid_api_key")
    assert said["type"] == "invalid_request_error"
    assert "wrong-key" not in answer.text
    assert fake_openai.requests == []


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready"])
def test_health_and_the_front_page_need_none(running, path):
    """A load balancer has no key."""
    assert running.http.get(path).status_code == 200


def test_the_sdk_names_the_mistake(running):
    """OpenAI's exceptions are those that its users catch."""
    with pytest.raises(openai.AuthenticationError) as caught:
        running.sdk(api_key="wrong-key-here").embeddings.create(model="m", input="x")
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError):
        running.sdk(api_key=SECRETS["SEARCH"]).embeddings.create(model="n", input="x")


def test_a_key_has_its_models(running):
    """403 for another model, and its list holds its own alone."""
    refused = running.embed("x", "n", headers=bearer("SEARCH"))
    said = error(refused)
    assert (refused.status_code, said["code"], said["param"]) == (403, "permission_denied", "model")
    assert "m, text-*" in said["message"]
    assert running.embed("x", "n", headers=bearer("OPS")).status_code == 200
    listed = {
        name: [
            model["id"]
            for model in running.http.get("/v1/models", headers=bearer(name)).json()["data"]
        ]
        for name in ("SEARCH", "OPS")
    }
    assert listed == {"SEARCH": ["m"], "OPS": ["m", "n"]}
    assert running.http.get("/v1/models/n", headers=bearer("SEARCH")).status_code == 404


def test_tenants_never_share_a_vector(running, fake_openai):
    """Two keys of one tenant do, another tenant asks anew and gets its own draw."""
    fake_openai.noise = 3e-4
    drawn = {name: running.vectors("x", headers=bearer(name)) for name in SECRETS}
    again = {name: running.vectors("x", headers=bearer(name)) for name in SECRETS}
    assert drawn == again
    assert drawn["SEARCH"] == drawn["SEARCH_TOO"] != drawn["OPS"]
    assert fake_openai.calls == 2


def test_a_clients_key_does_not_go_upstream(running, fake_openai):
    """The gateway's own key goes there, or none."""
    running.embed("x", headers=bearer("SEARCH") | {"cookie": "c", "x-team": "t"})
    (request,) = fake_openai.requests
    assert not {"authorization", "api-key", "cookie", "x-team"} & request.headers.keys()
    assert b"secret" not in request.raw


def test_metrics_need_an_admin_key(running):
    """403 for a good key that is none."""
    refused = running.http.get("/metrics", headers=bearer("SEARCH"))
    assert (refused.status_code, error(refused)["code"]) == (403, "permission_denied")
    assert running.http.get("/metrics", headers=bearer("OPS")).status_code == 200


def test_without_keys_anybody_may_call_with_any(gateway, fake_openai):
    """And see the metrics."""
    running = gateway(one_model(fake_openai.base_url))
    for headers in ({}, {"authorization": "Bearer whatever"}):
        assert running.embed("x", headers=headers).status_code == 200
        assert running.http.get("/metrics", headers=headers).status_code == 200


def test_an_admin_listener_has_the_metrics_to_itself(gateway, fake_openai):
    """There they need no key; on the public one they are not served at all, nor the other way."""
    rest = f'[server]\nadmin = "127.0.0.1:9090"\n{KEYS}'
    running = gateway(one_model(fake_openai.base_url, rest=rest), **SECRETS)
    running.embed("x", headers=bearer("SEARCH"))
    page = httpx2.get(f"{running.admin_address}/metrics")
    assert page.status_code == 200
    assert 'gateway_requests_total{code="200",model="m",operation="embeddings"} 1.0' in page.text
    assert httpx2.get(f"{running.admin_address}/health/ready").status_code == 200
    assert running.http.get("/metrics", headers=bearer("OPS")).status_code == 404
    assert httpx2.get(f"{running.admin_address}/v1/models").status_code == 404
