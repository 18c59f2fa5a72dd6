"""The files in config/: each works, the full one describes every option, the schema is current."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from gateway import config as gateway_config
from gateway.config.schema import KINDS, SECTIONS, Cache, Key, Model, Server, fields
from gateway.errors import ConfigError

CONFIG = Path(__file__).parent.parent / "config"
EXAMPLES = sorted(CONFIG.glob("*.toml"))
FULL = (CONFIG / "gateway.toml").read_text()
TEXTS = "".join(path.read_text() for path in EXAMPLES)
ENVIRON = {name: f"{name}-value-long-enough" for name in re.findall(r"\$\{env:([A-Z_]+)\}", TEXTS)}
ENVIRON["HOME"] = "/home/somebody"
UNSET = re.compile(r"^#(\w+) = (.*?)(?:  +#.*)?$", re.MULTILINE)
"""An option that the full example names without setting it."""


def test_the_variants_are_there():
    """There is a file to begin with for each way of using the gateway."""
    names = {path.name for path in EXAMPLES}
    assert {"gateway.toml", "local.toml", "openai.toml", "openai-and-local.toml"} <= names
    assert "shared.toml" in names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_works(path):
    """Each file is accepted as it is, once the variables that it names are set."""
    config = gateway_config.load(path, ENVIRON)
    assert (config.warnings, len(config.cache.store)) == ((), 1)
    assert {"text-embedding-3-small", "text-embedding-3-*", "all-minilm-l6-v2"} & set(config.models)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_each_example_fits_the_schema(path):
    """An editor that checks a file against the schema finds nothing to complain of."""
    text = path.read_text()
    assert text.startswith("#:schema schema.json\n")
    jsonschema.Draft7Validator(gateway_config.json_schema()).validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "struct", [Server, Cache, Key, *KINDS.values(), Model], ids=lambda s: s.__name__
)
def test_the_full_example_names_every_option(struct):
    """No option can be added without its line in the full example, in its own table."""
    headers = {Server: "[server]", Cache: "[cache]", Key: "[[keys]]", Model: "[models."}
    headers |= {kind: f'kind = "{name}"' for name, kind in KINDS.items()}
    described = {
        line.lstrip("#").split(" = ")[0]
        for table in re.split(r"\n\n+(?=\[)", FULL)
        if headers[struct] in table
        for line in table.splitlines()
    }
    assert {field.name for field in fields(struct)} - described == set()


@pytest.mark.parametrize("unset", list(UNSET.finditer(FULL)), ids=lambda match: match[1])
def test_options_that_are_not_set_could_be(unset):
    """Each option that is only shown may be switched on, alone, as it stands there."""
    text = f"{FULL[: unset.start()]}{FULL[unset.start() + 1 :]}"
    allowed = {
        "tls_cert": "tls_key is missing",
        "tls_key": "tls_cert is missing",
        "ca_file": 'ca.pem" cannot be read',
        "idle": 'needs load = "first-use"',
        "max_tokens": 'needs tokenizer = "cl100k_base"',
    }
    try:
        gateway_config.parse(text, source=None, environ=ENVIRON, base_dir=CONFIG)
    except ConfigError as error:
        problems = error.problems
    else:
        problems = []
    wanted = allowed.get(unset[1])
    assert [wanted in line for line in problems] == ([True] if wanted else [])


def test_the_committed_schema_is_current():
    """config/schema.json is what `gateway check --schema` prints."""
    schema = gateway_config.json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema == json.loads((CONFIG / "schema.json").read_text())


def test_the_schema_describes_every_option():
    """Each option has a description for the editor to show, and each table the file's names."""
    schema = gateway_config.json_schema()
    assert set(SECTIONS) == set(schema["properties"])
    for name, table in schema["definitions"].items():
        assert all(option["description"] for option in table["properties"].values()), name
    assert schema["definitions"]["upstream-openai"]["required"] == ["kind", "base_url"]
    assert schema["definitions"]["server"]["properties"]["request_timeout"]["default"] == "2m"


CASES = tomllib.loads((Path(__file__).parent / "config" / "broken.toml").read_text())["case"]
SCHEMA_SEES = ("unknown option", "must be a whole number", "must be a duration", "must be a list")


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case["says"].startswith(SCHEMA_SEES)],
    ids=lambda case: case["path"],
)
def test_the_schema_sees_plain_mistakes(case):
    """What an editor can know to be wrong, it is told: unknown names, wrong types and limits."""
    validator = jsonschema.Draft7Validator(gateway_config.json_schema())
    raw = {"upstreams": {"o": {"kind": "openai", "base_url": "http://o"}}}
    raw |= {"models": {"n": {"upstreams": ["o"]}}}
    assert validator.is_valid(raw)
    assert not validator.is_valid(raw | tomllib.loads(case["toml"]))
