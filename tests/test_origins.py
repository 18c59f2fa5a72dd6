"""Which host a request may name, and which web page may make a browser send one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.origins import Origins
from gateway.errors import MisdirectedError, PermissionDeniedError
from tests.config_texts import parse
from tests.edge import GOOD, error, post
from tests.running import one_model

KEY = '[[keys]]\nname = "k"\nsecret = "a long secret"\n'


def verdict(origins: Origins, host: bytes | None, origin: bytes | None) -> str:
    try:
        return "readable" if origins.admit(host, origin) else "served"
    except PermissionDeniedError as refused:
        return str(refused.code)
    except MisdirectedError:
        return "misdirected"


@pytest.mark.parametrize(
    ("host", "origin", "without_keys", "with_keys"),
    [
        (b"gateway:8000", None, "served", "served"),
        (b"127.0.0.1:8000", b"http://127.0.0.1:8000", "served", "served"),
        (b"[::1]:8000", b"http://[::1]:8000", "served", "served"),
        (b"localhost:8000", b"http://localhost:8000", "served", "served"),
        (b"LocalHost", b"http://localhost", "served", "served"),
        (b"10.1.2.3", b"https://10.1.2.3:443", "served", "served"),
        (b"app.localhost", b"http://app.localhost:80", "served", "served"),
        # Whatever the address is, another page is another page.
        (b"127.0.0.1:8000", b"https://evil.example", "origin_not_allowed", "served"),
        (b"127.0.0.1:8000", b"http://127.0.0.1:9000", "origin_not_allowed", "served"),
        (b"127.0.0.1:8000", b"http://127.0.0.1", "origin_not_allowed", "served"),
        (b"127.0.0.1:8000", b"null", "origin_not_allowed", "served"),
        (b"127.0.0.1:8000", b"", "origin_not_allowed", "served"),
        (b"localhost", b"http://localhost.evil.example", "origin_not_allowed", "served"),
        (None, b"http://x", "origin_not_allowed", "served"),
        # The name of a page that points to us: the browser takes both for one.
        (b"evil.example:8000", b"http://evil.example:8000", "host_not_allowed", "served"),
        (b"127.0.0.1.evil.example", b"http://127.0.0.1.evil.example", "host_not_allowed", "served"),
        (b"notlocalhost", b"http://notlocalhost", "host_not_allowed", "served"),
        (b"1.2.3", b"http://1.2.3", "host_not_allowed", "served"),
    ],
)
def test_a_page_is_heard_where_it_cannot_be_a_strangers(host, origin, without_keys, with_keys):
    """Without keys; with them a page can do nothing that whoever wrote it could not."""
    assert verdict(Origins(keyless=True), host, origin) == without_keys
    assert verdict(Origins(keyless=False), host, origin) == with_keys


def test_listed_origins_may_read_and_others_are_as_before():
    """Each by its whole origin; "*" is every page there is."""
    some = Origins(origins=["https://app.example", "null"], keyless=True)
    for origin in (b"https://app.example", b"HTTPS://APP.example", b"null"):
        assert verdict(some, b"x", origin) == "readable"
        assert (b"access-control-allow-origin", origin) in some.admit(b"x", origin)
    for origin in (b"http://app.example", b"https://app.example:8443", b"https://b.app.example"):
        assert verdict(some, b"x", origin) == "origin_not_allowed"
    every = Origins(origins=["*"], keyless=True)
    assert (b"access-control-allow-origin", b"*") in every.admit(b"x", b"https://evil.example")
    assert every.admit(b"x", None) == ()


def test_listed_hosts_and_addresses_are_answered_and_no_others():
    """Whoever asks, page or not; a listed name is good for its own pages too."""
    origins = Origins(["gateway.example", "*.internal"], keyless=True)
    for host in (b"gateway.example", b"Gateway.Example:443", b"a.b.internal", b"10.0.0.1:80"):
        assert verdict(origins, host, None) == "served"
    assert verdict(origins, b"[fe80::1]:8000", None) == "served"
    for host in (b"internal", b"xinternal", b"gateway.example.evil", b"localhost", b"", None):
        assert verdict(origins, host, None) == "misdirected"
    assert verdict(origins, b"gateway.example", b"https://gateway.example") == "served"


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_whatever_is_sent_is_decided(host, origin):
    """No bytes raise anything but a refusal, and none that are not listed may read."""
    origins = Origins(["a.example"], ["https://b.example"], keyless=True)
    assert verdict(origins, host, origin) != "readable" or origin.lower() == b"https://b.example"


def test_a_page_of_another_origin_costs_nothing_where_no_key_is_asked_for(gateway, fake_openai):
    """Its answer it could not read; here it is not even made. The option to set is named."""
    running = gateway(one_model(fake_openai.base_url))
    refused = post(running, GOOD, origin="https://evil.example")
    assert (refused.status_code, error(refused)["code"]) == (403, "origin_not_allowed")
    assert "[server] origins" in error(refused)["message"]
    assert running.http.options("/v1/models", headers={"origin": "https://e"}).status_code == 403
    assert fake_openai.calls == 0
    assert post(running, GOOD, origin=running.address).status_code == 200
    assert post(running, GOOD).status_code == 200
    assert running.metric("gateway_rejected_total", reason="origin") == 2


def test_a_page_with_a_key_is_served_and_may_not_read(gateway, fake_openai):
    """CORS is off unless it is configured."""
    running = gateway(one_model(fake_openai.base_url, rest=KEY))
    headers = {"origin": "https://app.example", "authorization": "Bearer a long secret"}
    answer = post(running, GOOD, **headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_listed_page_is_asked_for_and_may_read_all_of_it(gateway, fake_openai):
    """The browser asks first; then answers and errors alike are the page's to read."""
    rest = '[server]\norigins = ["https://app.example"]\n'
    running = gateway(one_model(fake_openai.base_url, rest=rest + KEY))
    asking = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
        "access-control-request-private-network": "true",
    }
    told = running.http.options("/v1/embeddings", headers=asking)
    assert (told.status_code, told.content) == (204, b"")
    allowed = {n: v for n, v in told.headers.items() if n.startswith("access-control-allow")}
    assert allowed == {
        "access-control-allow-origin": "https://app.example",
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": "authorization,content-type,x-stainless-lang",
        "access-control-allow-private-network": "true",
    }
    for key, status in (("a long secret", 200), ("another", 401)):
        headers = {"origin": "https://app.example", "authorization": f"Bearer {key}"}
        answer = post(running, GOOD, **headers)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-expose-headers"] == "*"
        assert answer.headers["vary"] == "origin"
    other = running.http.options("/v1/embeddings", headers=asking | {"origin": "https://other"})
    assert other.status_code == 405


def test_a_request_for_another_host_is_a_421(gateway, fake_openai):
    """Where names are listed; probes go to an address, which is always ours."""
    rest = '[server]\nhosts = ["gateway.example"]'
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    assert running.http.get("/health/ready").status_code == 200
    refused = post(running, GOOD, host="other.example")
    assert (refused.status_code, error(refused)["code"]) == (421, "misdirected_request")
    assert "[server] hosts" in error(refused)["message"]
    assert post(running, GOOD, host="gateway.example:8000").status_code == 200


def test_the_admin_listener_has_no_keys_and_so_no_strangers_pages(gateway, fake_openai):
    """Though the gateway beside it has keys."""
    rest = '[server]\nadmin = "127.0.0.1:9090"\n' + KEY
    running = gateway(one_model(fake_openai.base_url, rest=rest))
    page = {"origin": "https://evil.example"}
    assert running.http.get(f"{running.admin_address}/metrics", headers=page).status_code == 403
    assert running.http.get(f"{running.admin_address}/metrics").status_code == 200


@pytest.mark.parametrize(
    ("option", "written", "kept"),
    [
        ("hosts", '["Gateway.Example", "*.internal", "a_b-c"]', ("gateway.example", "*.internal")),
        ("origins", '["HTTPS://App.Example:8443", "null"]', ("https://app.example:8443", "null")),
        ("origins", '["*", "http://[::1]:3000", "app://x"]', ("*", "http://[::1]:3000")),
    ],
)
def test_names_are_kept_in_lower_case(option, written, kept):
    """As browsers and resolvers compare them."""
    config = parse(f"[server]\n{option} = {written}\n" + one_model("https://example.com/v1"))
    assert getattr(config.server, option)[:2] == kept
