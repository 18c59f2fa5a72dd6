"""One visitor's page: everything that it asked for, and everything that went wrong in it."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response, expect

_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


@dataclass(frozen=True)
class Exchange:
    """One request for embeddings and its answer."""

    texts: list[str]
    fresh: bool
    """Whether it asked for what is not kept."""
    vectors: np.ndarray
    """float32, a row a text."""
    tokens: int
    status: str
    """The answer's Cache-Status."""


class Visit:
    """A page from its opening on."""

    def __init__(self, context: BrowserContext, address: str, expects: tuple[str, ...]) -> None:
        """`expects` are parts of console messages that are no trouble."""
        self.context = context
        self.address = address
        self.troubles: list[str] = []
        self.requests: list[Request] = []
        self._answers: list[Response] = []
        self._expects = expects
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.add_init_script(_TELL_VIOLATIONS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("response", lambda answer: self._answers.append(answer))  # noqa: PLW0108 - no built-ins here

    def opened(self) -> Self:
        """Open it; return when it has heard from the gateway."""
        self.page.goto(self.address)
        expect(self.page.locator("#status")).not_to_have_attribute("data-state", "unknown")
        return self

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(
            e in message.text for e in self._expects
        ):
            self.troubles.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        self.requests.append(request)
        if not request.url.startswith((f"{self.address}/", "data:")):
            self.troubles.append(f"foreign: {request.url}")

    @property
    def exchanges(self) -> list[Exchange]:
        """Every good answer to a request for embeddings, in the order in which they were asked."""
        answers = {answer.request: answer for answer in self._answers if answer.ok}
        asked = [r for r in self.requests if r.url.endswith("/v1/embeddings") and r in answers]
        return [_exchange(request, answers[request]) for request in asked]

    def run_playground(self, *texts: str, **fields: str) -> None:
        """Fill in the playground and run it; return when it has told the outcome."""
        self._run("playground", {"texts": "\n".join(texts)} | fields)

    def compare(self, *texts: str, **fields: str) -> None:
        """Fill in the comparison and run it; return when it has told the outcome."""
        self._run("repro", {"texts": "\n".join(texts)} | fields)

    def _run(self, name: str, fields: Mapping[str, str]) -> None:
        self.page.wait_for_selector(f"#{name}-model option:nth-child(2)", state="attached")
        for field, value in fields.items():
            self.page.fill(f"#{name}-{field}", value)
        run = self.page.locator(f"#{name}-run")
        words = run.inner_text()
        run.click()
        # While it runs it says "Stop".
        expect(run).to_have_text(words, timeout=30_000)

    def values(self, selector: str) -> list[float]:
        """Return what elements have as `data-value`."""
        found = self.page.locator(selector).evaluate_all("all => all.map(e => e.dataset.value)")
        return [float(value) for value in found]


def _exchange(request: Request, answer: Response) -> Exchange:
    sent, told = json.loads(request.post_data or ""), answer.json()
    rows = [np.frombuffer(b64decode(item["embedding"]), "<f4") for item in told["data"]]
    headers = answer.all_headers()
    return Exchange(
        texts=sent["input"],
        fresh=request.all_headers().get("cache-control") == "no-cache",
        vectors=np.stack(rows),
        tokens=told["usage"]["prompt_tokens"],
        status=headers["cache-status"],
    )
