"""The console page: a few static files, which show what the gateway serves anyway.

The page asks /metrics, /v1/models, /health/ready and /v1/embeddings like any other client, with a
key that is typed into it where keys are configured. So the files themselves hold no secrets and
need no key; and as they load nothing else, they come with a policy that forbids it.
"""

from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from importlib.resources import files

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["routes"]

Answers = Callable[[Request], Awaitable[Response]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Kept by the browser, but asked for each time: a page must not outlive its gateway's update.
    "cache-control": "no-cache",
}
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PAGE = "index.html"


def routes(otherwise: Answers | None = None) -> Iterator[Route]:
    """Yield the page's routes: `/`, and its parts under /console/.

    `otherwise` answers `/` for whoever does not ask for HTML, as curl and health checks do not.
    """
    for file in files(__name__).joinpath("page").iterdir():
        _, _, ending = file.name.rpartition(".")
        answer = _file(file.read_bytes(), _TYPES[ending])
        if file.name == _PAGE:
            answer = _html_or(otherwise, answer) if otherwise is not None else answer
            yield Route("/", answer, methods=["GET"])
        else:
            yield Route(f"/console/{file.name}", answer, methods=["GET"])


def _file(body: bytes, media_type: str) -> Answers:
    """Return what answers with a file, or that it has not changed."""
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": etag}

    async def answer(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return answer


def _html_or(otherwise: Answers, page: Answers) -> Answers:
    async def answer(request: Request) -> Response:
        chosen = page if _takes_html(request.headers) else otherwise
        response = await chosen(request)
        response.headers["vary"] = "accept"
        return response

    return answer


def _takes_html(headers: Headers) -> bool:
    """Whether a client names HTML among what it accepts, as browsers do; `*/*` says nothing."""
    for accepted in headers.get("accept", "").split(","):
        media_type, *parameters = (part.strip().lower() for part in accepted.split(";"))
        if media_type == "text/html":
            return not any(_refuses(parameter) for parameter in parameters)
    return False


def _refuses(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().strip("0.") == ""
