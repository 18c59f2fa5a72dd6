"""The page in a real browser: quiet, readable by everybody, and deaf to what is written into it."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.upstream_behaviours import status

HOSTILE = (
    "<img src=x onerror=\"document.title='pwned'\">",
    "</textarea><script>document.title='pwned'</script>",
    "\"'><svg onload=document.title='pwned'>",
    "{{7*7}} ${7*7} javascript:document.title='pwned'",
    "\N{RIGHT-TO-LEFT OVERRIDE}desrever\N{POP DIRECTIONAL FORMATTING} e\N{COMBINING ACUTE ACCENT}",
)
OUR_TAGS = {"IMG": 1, "SCRIPT": 2, "IFRAME": 0, "OBJECT": 0}


def serious(page) -> list[str]:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits(edge, visit, scheme):
    """In both themes, from phone to wide screen, with all results shown.

    axe finds nothing serious, nothing is wider than the window, nothing went wrong on the way.
    """
    opened = visit(edge.address, color_scheme=scheme)
    opened.run_playground("a cat", "a kitten", "a loan", "a bank", "bread")
    opened.compare("a cat", "a loan", draws="3")
    opened.page.click("#playground summary")
    for width in (360, 768, 1024, 1440, 2560):
        opened.page.set_viewport_size({"width": width, "height": 900})
        expect(opened.page.locator("#requests-chart svg")).to_be_visible()
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width
        if width in (360, 1440):
            assert serious(opened.page) == []


def test_axe_would_have_found_something(edge, visit):
    """What the test above relies on notices text that cannot be read."""
    page = visit(edge.address).page
    page.evaluate("document.querySelector('.lead').style.color = 'rgb(230 230 230)'")
    assert any("color-contrast" in line for line in serious(page))


def test_every_colour_of_the_heatmap_can_be_read(edge, visit):
    """Numbers on each shade, in both themes: a contrast of 4.5 at least, as WCAG wants it."""
    for scheme in ("light", "dark"):
        page = visit(edge.address, color_scheme=scheme).page
        found = page.evaluate(
            """async () => {
              const { drawHeatmap } = await import("/console/heatmap.js");
              const ramp = Array.from({ length: 201 }, (_, i) => (i - 100) / 100);
              document.getElementById("playground-results").hidden = false;
              drawHeatmap(["t"], [ramp], () => {});
              const canvas = document.createElement("canvas");
              const pen = canvas.getContext("2d", { willReadFrequently: true });
              const light = (colour) => {
                pen.fillStyle = colour;
                pen.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((c) => c / 255)
                  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              return [...document.querySelectorAll("#heatmap [role=gridcell]")].map((cell) => {
                const style = getComputedStyle(cell);
                const [a, b] = [light(style.color), light(style.backgroundColor)].sort();
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
              });
            }"""
        )
        assert len(found) == 201
        assert min(found) >= 4.5, scheme


@pytest.mark.parametrize("width", [360, 900, 1100, 1280, 1440])
@pytest.mark.parametrize("texts", [9, 12])
def test_numbers_of_the_heatmap_stay_in_their_cells(edge, visit, width, texts):
    """Negative ones too, which are the widest: none overlaps its neighbour."""
    page = visit(edge.address, width=width).page
    over = page.evaluate(
        """async (count) => {
          const { drawHeatmap } = await import("/console/heatmap.js");
          document.getElementById("playground-results").hidden = false;
          const matrix = Array(count).fill(Array(count).fill(-0.88));
          drawHeatmap(Array(count).fill("a text"), matrix, () => {});
          return [...document.querySelectorAll("#heatmap [role=gridcell]")].map((cell) => {
            const words = document.createRange();
            words.selectNodeContents(cell);
            return words.getBoundingClientRect().width - cell.clientWidth;
          });
        }""",
        texts,
    )
    assert len(over) == texts**2
    assert max(over) <= 0


def test_hostile_texts_are_shown_as_texts(edge, visit):
    """Markup in a text is text, in the table, the heatmap, the map and the snippets."""
    opened = visit(edge.address)
    opened.run_playground(*HOSTILE)
    opened.compare(*HOSTILE, draws="2")
    shown = opened.page.locator("#origins th[role=rowheader]").all_text_contents()
    assert shown == list(HOSTILE)
    assert opened.page.locator("#repro-table th[role=rowheader]").all_text_contents() == shown
    assert opened.page.locator("#map-table tbody th").all_text_contents() == shown
    assert HOSTILE[0].replace('"', '\\"') in opened.page.text_content("#playground-python")
    assert_untouched(opened.page)


def test_hostile_names_are_shown_as_texts(fake_openai, gateway, visit):
    """Of models and their aliases, wherever they come up."""
    model, alias = HOSTILE[0], HOSTILE[2]
    quoted = [name.replace('"', '\\"') for name in (model, alias)]
    toml = f"""
        [upstreams.fake]
        kind = "openai"
        base_url = "{fake_openai.base_url}"
        [models."{quoted[0]}"]
        upstreams = ["fake"]
        aliases = ["{quoted[1]}"]
    """
    opened = visit(gateway(toml).address)
    opened.run_playground("a text")
    assert opened.page.text_content("#models code") == model
    assert opened.page.text_content("#models small") == f"also {alias}"
    assert opened.page.locator("#playground-model option").first.text_content() == model
    assert_untouched(opened.page)


def test_a_hostile_error_is_shown_as_text(fake_openai, edge, visit):
    """An upstream's refusal, whose words pass through the gateway."""
    words = f'{{"error": {{"message": "{HOSTILE[1]}", "type": "invalid_request_error"}}}}'
    fake_openai.always(status(400, body=words.encode()))
    opened = visit(edge.address, expects=("status of 400",))
    opened.run_playground("refused")
    assert "</textarea><script>" in opened.page.text_content("#origins .chip")
    assert "</textarea><script>" in opened.page.text_content("#playground-said")
    assert_untouched(opened.page)


def assert_untouched(page) -> None:
    assert page.title() == "Embedding gateway"
    for tag, known in OUR_TAGS.items():
        assert page.locator(tag.lower()).count() == known, tag


def test_a_failure_of_one_text_leaves_the_others(fake_openai, edge, visit):
    """It is named beside the text; similarity and map are of those that have a vector."""
    fake_openai.script(status(400, body=b'{"error": {"message": "Not this one."}}'))
    opened = visit(edge.address, expects=("status of 400",))
    opened.run_playground("first of three", "second of three", "third of three")
    origins = opened.page.locator("#origins td[data-name=From]").all_inner_texts()
    assert origins.count("model") == 2
    assert "Not this one" in "".join(origins)
    assert opened.page.locator("#heatmap [role=gridcell]").count() == 4
    assert opened.page.inner_text("#playground-said").endswith("1 text failed")


def test_keys_are_enough(page):
    """From the address bar on: skip link, run, read the heatmap with arrows, change the theme."""
    page.wait_for_selector("#playground-model option:nth-child(2)", state="attached")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0

    tab_to(page, "#theme-button")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("Enter")  # light, as it was
    page.keyboard.press("Enter")
    assert page.inner_text("#theme-button") == "Theme: dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    tab_to(page, "#playground-texts")
    page.keyboard.press("Control+A")
    page.keyboard.type("one\ntwo\nthree")
    tab_to(page, "#playground-run")
    page.keyboard.press("Enter")
    page.wait_for_selector("#heatmap [role=gridcell]")
    tab_to(page, "[data-at='0,0']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.at") == "1,2"
    assert re.match(r"-?0\.\d{6}: “two” and “three”", page.inner_text("#heatmap-said"))
    assert page.locator("#map .marked").count() == 2
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.at") == "1,2"


def tab_to(page, wanted: str) -> None:
    """Press Tab until this has the focus, and see that it shows."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", wanted
            return
    raise AssertionError(f"{wanted} is not reached")


def test_the_theme_is_remembered(edge, visit):
    """Over a reload, before anything is drawn; until it is the system's again."""
    page = visit(edge.address, color_scheme="light").page
    for theme in ("light", "dark"):
        page.click("#theme-button")
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        assert page.evaluate("getComputedStyle(document.body).colorScheme") == theme
    page.click("#theme-button")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme ?? 'auto'") == "auto"


def test_the_introduction_can_be_put_away(page):
    """It says what this is for, and where to point a client; who knows it hides it, for good."""
    assert page.inner_text("#about-title") == "One text, one vector."
    assert page.input_value("#base-url") == page.evaluate("location.origin + '/v1'")
    page.click("#about-hide")
    page.reload()
    assert not page.is_visible("#about")
    page.click("#about-show")
    page.reload()
    assert page.is_visible("#about")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("texts", " \n ", "Write at least one text."),
        ("texts", "x\n" * 51, "At most 50 texts, please."),
        ("dimensions", "0", "Dimensions are a whole number from 1 on, or empty."),
        ("dimensions", "many", "Dimensions are a whole number from 1 on, or empty."),
        ("seed", "1.5", "A seed is a whole number of 64 bits, or empty."),
        ("seed", str(2**63), "A seed is a whole number of 64 bits, or empty."),
    ],
)
def test_a_mistake_is_told_and_nothing_is_sent(edge, visit, field, value, words):
    """In words beside the button; the field is marked, and has the focus."""
    opened = visit(edge.address)
    opened.run_playground(**{"texts": "x", field: value})
    assert opened.page.inner_text("#playground-said") == words
    assert opened.page.evaluate("document.activeElement.id") == f"playground-{field}"
    assert opened.page.get_attribute(f"#playground-{field}", "aria-invalid") == "true"
    assert opened.exchanges == []
