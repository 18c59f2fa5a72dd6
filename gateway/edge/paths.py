"""What paths are for, and the short way to those that are asked most."""

from collections.abc import Sequence

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.edge.endpoints import PostEndpoint

_OPERATIONS = {
    "/v1/embeddings": "embeddings",
    "/embeddings": "embeddings",
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/models": "models",
    "/models": "models",
    "/metrics": "metrics",
    "/health/live": "health",
    "/health/ready": "health",
}
_OTHER = "other"
OPERATIONS = frozenset({*_OPERATIONS.values(), _OTHER})
"""What a request may be for: a closed set."""


def operation(path: str) -> str:
    """Return what a path is for: one of OPERATIONS."""
    known = _OPERATIONS.get(path)
    if known is None:
        return "models" if path.startswith(("/v1/models/", "/models/")) else _OTHER
    return known


def straight(router: ASGIApp, routes: Sequence[Route]) -> ASGIApp:
    """Return the router, but for applications among its routes that take a POST: straight to them.

    Going through the patterns of all routes costs a tenth of a cached answer.
    """
    posted = {
        ("POST", route.path): route.endpoint
        for route in routes
        if isinstance(route.endpoint, PostEndpoint)
    }

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        app = posted.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (app or router)(scope, receive, send)

    return dispatch
