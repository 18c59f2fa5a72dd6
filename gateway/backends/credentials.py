"""What an upstream is told of who asks it: the config's key, or where it says so the caller's own.

Of a client's headers nothing else ever goes upstream.
"""

from collections.abc import Mapping
from dataclasses import replace

from gateway.backends.exchange import Reply
from gateway.backends.failures import Failure, said_of, without
from gateway.errors import (
    AuthenticationError,
    GatewayError,
    OwnLimitError,
    PermissionDeniedError,
    RateLimitError,
)
from gateway.types import Caller, Credential


class Credentials:
    """How the calls to one upstream are signed, and what its refusals then mean."""

    def __init__(
        self, upstream: str, auth_header: str, api_key: str | None, *, forwarded: bool
    ) -> None:
        """`forwarded`: the caller's own key in place of `api_key`."""
        self._upstream = upstream
        self._header = auth_header.lower()
        self._own = self._signed(api_key) if api_key and not forwarded else {}
        self._forwarded = forwarded

    def sign(self, headers: Mapping[str, str], caller: Caller) -> Mapping[str, str]:
        """Return the headers of a call for this caller."""
        if not self._forwarded or caller.credential is None:
            return {**headers, **self._own} if self._own else headers
        credential = caller.credential
        return {**headers, **self._signed(credential.key), **_named(credential)}

    def meant(self, failure: Failure | None, reply: Reply, caller: Caller) -> Failure | None:
        """Return what an error means to this caller: where the key was his, so is its refusal."""
        if failure is None or not self._forwarded or caller.credential is None:
            return failure
        error = self._refusal(failure.error, reply)
        error.message = without(error.message, (), [caller.credential.key])
        error.reason = None  # it was not the gateway that turned the request away
        return replace(failure, error=error)

    def _refusal(self, error: GatewayError, reply: Reply) -> GatewayError:
        if reply.status == 401:
            # What it says may quote a part of the key.
            return AuthenticationError(
                f"Upstream '{self._upstream}' refused the API key of this request."
            )
        if reply.status == 403:
            said = said_of(reply)
            refused = f"Upstream '{self._upstream}' refused this request to its API key."
            return PermissionDeniedError(said.message or refused, code=said.code)
        if isinstance(error, RateLimitError):
            return OwnLimitError(error.message, code=error.code, headers=error.headers)
        return error

    def _signed(self, key: str) -> dict[str, str]:
        return {self._header: f"Bearer {key}" if self._header == "authorization" else key}


def _named(credential: Credential) -> dict[str, str]:
    named = {
        "openai-organization": credential.organization,
        "openai-project": credential.project,
    }
    return {name: value for name, value in named.items() if value is not None}
