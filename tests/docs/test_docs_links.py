"""What the pages point to is there: files, headings, pictures; and every page can be found."""

import re

import pytest

from tests.docs.pages import Page, everything, manual, page
from tests.processes import ROOT

PICTURES = {".png", ".svg"}


@pytest.mark.parametrize("one", everything(), ids=lambda one: one.name)
def test_every_link_leads_somewhere(one: Page) -> None:
    """Files are in the repository, and what stands behind a `#` is a heading of the page."""
    wrong = [link for link in one.links if not re.match("https?:|mailto:", link)]
    assert [link for link in wrong if not leads(one, link)] == []


def leads(one: Page, link: str) -> bool:
    """Return whether a relative link of a page is right."""
    place, _, anchor = link.partition("#")
    target = (one.path.parent / place).resolve() if place else one.path
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or (target.suffix == ".md" and anchor in Page(target).anchors)


def test_a_wrong_link_is_found() -> None:
    """Of a file that is not there, of a heading that is not there, and of one outside."""
    readme = page("README.md")
    assert leads(readme, "SECURITY.md#reporting")
    assert not leads(readme, "SECURITY.md#nothing-of-the-kind")
    assert not leads(readme, "docs/nothing.md")
    assert not leads(readme, "../elsewhere.md")


def test_every_page_can_be_reached() -> None:
    """Whoever begins at the README and follows links comes to every page of docs/."""
    reached, ahead = set(), [page("README.md").path]
    while ahead:
        path = ahead.pop()
        if path in reached:
            continue
        reached.add(path)
        places = [link.partition("#")[0] for link in Page(path).links]
        targets = [(path.parent / place).resolve() for place in places if place.endswith(".md")]
        ahead += [target for target in targets if target.exists()]
    assert {one.path for one in manual()} - reached == set()


def test_every_picture_is_shown_and_described() -> None:
    """Each file of docs/pictures is on a page, and says in words what is to be seen."""
    shown = {
        (one.path.parent / source).resolve(): words
        for one in everything()
        for source, words in one.pictures.items()
    }
    assert [str(path) for path, words in shown.items() if len(words) < 20] == []
    there = {path for path in (ROOT / "docs/pictures").iterdir() if path.suffix in PICTURES}
    assert there - shown.keys() == set()
