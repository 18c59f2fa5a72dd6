"""API keys: who is who, in which headers, and what a key may not do."""

from hashlib import sha256

import pytest

from gateway.errors import AuthenticationError, InvalidRequestError, PermissionDeniedError
from gateway.keyring import Keyring
from gateway.types import Caller

SEARCH, ADMIN = Caller("search", "s", ["a-*"]), Caller("ops", admin=True)


def digest(key):
    return sha256(key).digest()


KEYS = Keyring([(digest(b"search-key"), SEARCH), (digest(b"admin-key"), ADMIN)])


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer search-key")],
        [(b"authorization", b"bearer search-key")],
        [(b"authorization", b"BEARER  search-key ")],
        [(b"api-key", b"search-key")],
        [(b"host", b"x"), (b"api-key", b"search-key"), (b"accept", b"*/*")],
        [(b"authorization", b"Basic eDp5"), (b"api-key", b"search-key")],
    ],
)
def test_a_key_is_known_by_either_header(headers):
    """`Authorization: Bearer`, as OpenAI's SDKs send it, or `api-key`, as Azure's do."""
    assert KEYS.caller(headers) is SEARCH


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([], "didn't provide an API key"),
        ([(b"authorization", b"")], "didn't provide an API key"),
        ([(b"authorization", b"Bearer ")], "didn't provide an API key"),
        ([(b"authorization", b"search-key")], "didn't provide an API key"),
        ([(b"authorization", b"Basic search-key")], "didn't provide an API key"),
        ([(b"api-key", b"")], "didn't provide an API key"),
        ([(b"authorization", b"Bearer search-ke")], "Incorrect API key"),
        ([(b"authorization", b"Bearer search-key2")], "Incorrect API key"),
        ([(b"authorization", b"Bearer Search-Key")], "Incorrect API key"),
        ([(b"authorization", b"Bearer \xff\xfe\x00")], "Incorrect API key"),
        ([(b"api-key", digest(b"search-key"))], "Incorrect API key"),
    ],
)
def test_anything_else_is_a_401_that_quotes_no_key(headers, words):
    """OpenAI's status and code; the message says what to send and repeats nothing."""
    with pytest.raises(AuthenticationError, match=words) as caught:
        KEYS.caller(headers)
    assert (401, "invalid_api_key") == (caught.value.status, caught.value.code)
    for quoted in ("search", "Search", "\xff", "sha256"):
        assert quoted not in caught.value.message


def test_without_keys_anybody_may_call_with_any_key():
    """The tenant is one for all, and every model may be used."""
    for headers in ([], [(b"authorization", b"Bearer whatever")]):
        caller = Keyring([]).caller(headers)
        assert (caller.tenant, caller.models, caller.admin) == ("default", None, False)
        assert Keyring([]).admin(headers) == caller


def test_admin_needs_a_key_that_is_one():
    """403 for a good key without the right, 401 for none."""
    assert KEYS.admin([(b"api-key", b"admin-key")]) is ADMIN
    with pytest.raises(PermissionDeniedError, match="admin = true"):
        KEYS.admin([(b"api-key", b"search-key")])
    with pytest.raises(AuthenticationError):
        KEYS.admin([])


def test_a_key_covers_its_models():
    """Names, patterns, and a config's own pattern by its very text."""
    may = {name: SEARCH.may_use(name) for name in ("a-1", "a-", "a", "b-a-1", "a-*")}
    assert may == {"a-1": True, "a-": True, "a": False, "b-a-1": False, "a-*": True}
    assert Caller(models=[]).may_use("x") is False
    assert Caller().may_use("x") is True


@pytest.mark.parametrize("name", [b"authorization", b"api-key", b"openai-project"])
def test_two_headers_that_say_who_asks_are_refused(name):
    """Whoever stands in front may have looked at the other one."""
    headers = [(name, b"Bearer search-key"), (b"accept", b"*/*"), (name, b"Bearer admin-key")]
    for keys in (KEYS, Keyring([], forwards=True)):
        with pytest.raises(InvalidRequestError, match="twice") as refused:
            keys.caller(headers)
        assert refused.value.status == 400
