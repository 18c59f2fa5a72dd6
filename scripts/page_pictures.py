"""Take the pictures of the console page in docs/pictures, of a real gateway with real traffic.

    python scripts/page_pictures.py [SECONDS]

For so many seconds (60) people ask for texts, some of them often. In OpenAI's place stands the
upstream of the tests, which takes 80 ms and never says the same twice; the bundled model is itself.
Wants what scripts/test installs, and Debian's chromium.
"""

import io
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openai
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.processes import GatewayProcess, gateway_process
from tests.upstream import FakeOpenAI, serve
from tests.upstream_behaviours import slow

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
WIDTH, HEIGHT, MARGIN = 1280, 860, 24
CONFIG = """
[server]
drift_delay = "2s"
[cache]
store = "sqlite://{cache}"
[upstreams.openai]
kind = "openai"
base_url = "{base_url}"
[upstreams.minilm]
kind = "llama"
model = "builtin:all-minilm-l6-v2"
[models."text-embedding-3-small"]
task = "embedding"
upstreams = ["openai"]
[models."all-minilm-l6-v2"]
task = "embedding"
upstreams = ["minilm"]
aliases = ["minilm"]
[models."gpt-*"]
task = "chat"
upstreams = ["openai"]
"""
REMOTE, LOCAL = "text-embedding-3-small", "all-minilm-l6-v2"
TEXTS = (
    *("a cat and her kittens", "a dog with its puppies", "horses in a meadow"),
    *("a fast train", "a bus full of people", "an old car"),
    *("rain and thunder", "snow in winter", "a sunny day"),
)
PAGE_OF_A_BOOK = "words " * 250
NOISE = 5e-4
"""In each component: about what lies between OpenAI's answers to one text."""


@contextmanager
def traffic(gateway: GatewayProcess) -> Iterator[None]:
    """Ask for texts for as long as the block runs: a few often, most seldom."""
    ended = threading.Event()

    def ask(number: int) -> None:
        chance = np.random.default_rng(number)
        with openai.OpenAI(base_url=gateway.base_url, api_key="any") as client:
            while not ended.wait(float(chance.exponential(0.08))):
                chosen = chance.zipf(1.4, chance.integers(1, 6)) % 5000
                long = PAGE_OF_A_BOOK if number % 3 == 0 else ""
                texts = [f"question {n} {long}" for n in chosen]
                client.embeddings.create(model=REMOTE if long else LOCAL, input=texts)
                if chance.random() < 0.02:
                    said = [{"role": "user", "content": f"question {chosen[0]}"}]
                    client.chat.completions.create(model="gpt-4o-mini", seed=1, messages=said)

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for asker in askers:
        asker.start()
    try:
        yield
    finally:
        ended.set()
        for asker in askers:
            asker.join()


def take(page: Page, name: str, section: str | None = None) -> None:
    """Save a picture of a section, else of the window, in 256 colours: it has no more."""
    page.mouse.move(0, 0)
    box = page.locator(section).bounding_box() if section else None
    clip = None
    if box is not None:
        top = page.evaluate("scrollY") + box["y"]
        clip = {"x": 0, "y": top, "width": WIDTH, "height": box["height"] + MARGIN}
    shot = page.screenshot(full_page=clip is not None, clip=clip, animations="disabled")
    image = Image.open(io.BytesIO(shot)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(PICTURES / name, optimize=True)
    sys.stdout.write(f"{name}: {image.width} x {image.height}\n")


def run(page: Page, form: str, texts: tuple[str, ...], model: str) -> None:
    """Fill in a form, run it, and wait for its end."""
    page.fill(f"#{form}-texts", "\n".join(texts))
    page.select_option(f"#{form}-model", model)
    button = page.locator(f"#{form}-run")
    words = button.inner_text()
    button.click()
    expect(button).to_have_text(words, timeout=60_000)


def visit(page: Page, address: str, seconds: float) -> None:
    """Look at all of it, and take the pictures."""
    page.goto(address)
    page.wait_for_timeout(seconds * 1000)
    take(page, "page.png")
    page.click("#about-hide")
    for sticks in ("header.top", "#playground-form", "#repro-form"):
        page.evaluate("name => (document.querySelector(name).style.position = 'static')", sticks)
    take(page, "page-live.png", "#live")
    for _ in range(2):  # the second time all of it is in memory
        run(page, "playground", TEXTS, LOCAL)
    take(page, "page-playground.png", "#playground")
    run(page, "repro", TEXTS[:4], REMOTE)
    take(page, "page-reproducibility.png", "#reproducibility")


def main() -> None:
    """Start everything, look at it, and stop it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    fake = FakeOpenAI(noise=NOISE)
    fake.always(slow(0.08))
    chromium = shutil.which("chromium") or sys.exit("apt-get install chromium")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with serve(fake), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        toml = CONFIG.format(base_url=fake.base_url, cache="${env:HOME}/cache.db")
        with gateway_process(toml, "--port", "8000") as gateway, traffic(gateway):
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light"
            )
            visit(page, gateway.address, seconds)
        browser.close()


if __name__ == "__main__":
    main()
