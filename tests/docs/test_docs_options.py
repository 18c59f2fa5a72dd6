"""docs/options.md is the list of the options that there are."""

from pathlib import Path

from gateway.config import json_schema
from gateway.config.schema import KINDS, Cache, Key, Model, Server, fields
from scripts import build_options
from tests.docs.pages import Page


def test_the_list_is_current() -> None:
    """It is what the script writes; `python scripts/build_options.py` brings it up to date."""
    assert Path(build_options.PAGE).read_text() == build_options.page(json_schema())


def test_the_list_has_every_option() -> None:
    """A table for each of the file's, with a row for each option of it."""
    structs = (Server, Cache, Key, *KINDS.values(), Model)
    expected = [[field.name for field in fields(struct)] for struct in structs]
    tables = Page(build_options.PAGE).tables
    assert expected == [[row[0].strip("`") for row in table[1:]] for table in tables]
