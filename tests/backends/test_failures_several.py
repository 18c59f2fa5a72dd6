"""What is gone on from, and which of several errors is told."""

import pytest

from gateway.backends.failover import most_telling, others_may_chat, others_may_embed
from gateway.errors import (
    InvalidInputError,
    InvalidRequestError,
    NotFoundError,
    OwnLimitError,
    RateLimitError,
    UnavailableError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
    retry_headers,
)

CONNECT = UpstreamConnectError("connect")
CONNECT_TIMEOUT = UpstreamTimeoutError("late", code="upstream_connect_timeout")
TIMEOUT = UpstreamTimeoutError("late")
BROKEN = UpstreamError("broken")
BAD = UpstreamError("bad", code="upstream_invalid_response")
KEY = UpstreamError("key", code="upstream_authentication")


def busy(seconds, kind=RateLimitError, **options):
    return kind("busy", headers=retry_headers(seconds), **options)


@pytest.mark.parametrize(
    ("error", "embeds", "chats"),
    [
        (CONNECT, True, True),
        (CONNECT_TIMEOUT, True, True),
        (TIMEOUT, True, False),
        (BROKEN, True, False),
        (BAD, True, False),
        (KEY, True, True),
        (busy(1), True, True),
        (busy(1, code="insufficient_quota"), True, True),
        (busy(1, UnavailableError), True, True),
        (busy(1, OwnLimitError), True, True),
        (InvalidRequestError("yours"), False, False),
        (InvalidInputError("yours", item=0), False, False),
        (NotFoundError("yours"), False, False),
    ],
)
def test_another_upstream_may_do_better(error, embeds, chats):
    """At all but the client's mistakes; a chat only where none was begun."""
    assert others_may_embed(error) is embeds
    assert others_may_chat(error) is chats


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([BAD, CONNECT], 0),
        ([CONNECT, BAD], 1),
        ([TIMEOUT, BROKEN], 1),
        ([CONNECT, TIMEOUT], 1),
        ([BROKEN, BAD], 0),
        ([BAD, busy(5)], 1),
        ([busy(5), busy(2, UnavailableError), busy(3)], 1),
        ([busy(1, code="insufficient_quota"), busy(30)], 1),
        ([CONNECT, busy(1, code="insufficient_quota")], 1),
        ([CONNECT], 0),
    ],
)
def test_the_most_telling_error_is_told(errors, told):
    """When to come back, the soonest; else what was answered, then late, then nobody there."""
    assert most_telling(errors) is errors[told]


def test_sdks_need_not_try_again_what_was_tried_everywhere():
    """But where they are told when to come back, they may."""
    assert most_telling([UpstreamError("x")]).headers == {"x-should-retry": "false"}
    assert "x-should-retry" not in most_telling([busy(1)]).headers
    assert "x-should-retry" not in most_telling([busy(1, UnavailableError)]).headers
