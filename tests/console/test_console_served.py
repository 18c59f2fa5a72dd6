"""How the console page is served, before any browser sees it."""

import re
from importlib.resources import files

import httpx2
import pytest

from tests.running import Running, one_model

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
FILES = {
    file.name: file.read_bytes() for file in files("gateway.console").joinpath("page").iterdir()
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def get(gateway: Running, path: str = "/", **headers: str) -> httpx2.Response:
    return gateway.http.get(path, headers=headers)


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "TEXT/HTML ; q=0.1"])
def test_whoever_takes_html_gets_the_page(edge, accept):
    """At the bare address, as the file that it is."""
    answer = get(edge, accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == FILES["index.html"]


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "", "text/html;q=0", "text/html; q=0.0", "text/htmlx"]
)
def test_whoever_does_not_gets_what_programs_always_got(edge, accept):
    """Curl and health checks see JSON, and a cache between knows that it depends on `accept`."""
    answer = get(edge, accept=accept)
    assert answer.json()["base_url"] == f"{edge.address}/v1"
    assert answer.headers["vary"] == get(edge, accept=BROWSER).headers["vary"] == "accept"


@pytest.mark.parametrize("name", [name for name in FILES if name != "index.html"])
def test_every_part_is_served_as_what_it_is(edge, name):
    """With a policy that lets it load nothing from elsewhere, and a type that nobody guesses."""
    answer = get(edge, f"/console/{name}")
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.content == FILES[name]
    assert answer.headers["content-type"].startswith(types[name.rpartition(".")[2]])
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_itself_has_the_same_policy(edge):
    """Nothing may frame it, and what is written into it cannot run."""
    headers = get(edge, accept=BROWSER).headers
    assert headers["content-security-policy"] == POLICY
    assert headers["cache-control"] == "no-cache"


def test_what_has_not_changed_is_not_sent_again(edge):
    """A browser that knows a file's etag is told so; one that knows another gets the file."""
    etag = get(edge, "/console/app.js").headers["etag"]
    same = get(edge, "/console/app.js", **{"if-none-match": f'W/"x", {etag}'})
    other = get(edge, "/console/app.js", **{"if-none-match": '"x"'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert (other.status_code, other.content) == (200, FILES["app.js"])


@pytest.mark.parametrize("path", ["/console/", "/console/nothing.js", "/console/../app.py"])
def test_nothing_else_is_served(edge, path):
    """What is no part of the page is a 404 like any other."""
    answer = get(edge, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


def test_it_is_small_and_loads_nothing_from_elsewhere():
    """Under 150 kB in all, without a compression; and no address of anybody is in it."""
    assert sum(map(len, FILES.values())) < 150_000
    for name, content in FILES.items():
        known = content.replace(b"http://www.w3.org/2000/svg", b"")
        assert not re.search(rb"(https?:)?//[a-z0-9]", known), name
        assert b"innerHTML" not in content, name


def test_it_stands_on_the_admin_listener_too(fake_openai, gateway):
    """For any `accept`: what the JSON would name is not served there."""
    toml = one_model(fake_openai.base_url, rest='[server]\nadmin = "127.0.0.1:9090"')
    running = gateway(toml)
    for accept in (BROWSER, "*/*"):
        answer = httpx2.get(running.admin_address, headers={"accept": accept})
        assert answer.content == FILES["index.html"]
    assert httpx2.get(f"{running.admin_address}/console/app.js").content == FILES["app.js"]


def test_no_key_is_needed_for_it(fake_openai, gateway):
    """As it holds no secrets; it asks for the key itself."""
    key = '[[keys]]\nname = "ops"\nsecret = "sk-of-the-operator"'
    running = gateway(one_model(fake_openai.base_url, rest=key))
    assert get(running, accept=BROWSER).content == FILES["index.html"]
    assert get(running, "/console/app.js").status_code == 200
    assert get(running, "/v1/models").status_code == 401
