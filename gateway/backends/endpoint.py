"""Where an upstream is, and how it wants to be addressed."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the config says of it; an engine of ours has one too."""

    base_url: str
    api_key: str | None = None
    auth_header: str = "authorization"
    forward_key: bool = False
    """Whether callers' own keys go there in place of `api_key`."""
    headers: Mapping[str, str] | None = None
    query: Mapping[str, str] | None = None
    encoding: str | None = "base64"
    """The `encoding_format` to ask for; None sends no such field."""
    by_position: bool = False
    """Whether items without any `index` may be placed by their position."""
    timeout: float = 60.0
    """Seconds for one attempt at embedding; a chat has all that its request has."""
    max_batch: int = 2048
    concurrency: int = 64
    max_queue: int = 1024
    """Calls that may wait for a place,"""
    max_queue_per_key: int = 512
    """and those of one key among them."""

    def url(self, path: str) -> str:
        """Return the address of a path below its own."""
        query = f"?{urlencode(self.query)}" if self.query else ""
        return f"{self.base_url}{path}{query}"

    def headers_for(self, accept: str) -> dict[str, str]:
        """Return what is sent with every call, but for the key."""
        headers = {"content-type": "application/json", "accept": accept}
        headers.update({name.lower(): value for name, value in (self.headers or {}).items()})
        return headers
