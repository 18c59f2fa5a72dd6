"""What `load` says of configs that cannot be used: the place, the reason and the way out."""

import string
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from gateway import config as gateway_config
from gateway.config.schema import Cache, Key, LlamaUpstream, Model, OpenAIUpstream, Server, fields
from gateway.config.show import toml_value
from gateway.errors import ConfigError

CASES = tomllib.loads((Path(__file__).parent / "config" / "broken.toml").read_text())["case"]
ENVIRON = {"KEY": "sesame-sesame", "OTHER": "sesame-street", "EMPTY": ""}
UPSTREAM = '\n[upstreams.openai]\nkind = "openai"\nbase_url = "https://api.openai.com/v1"\n'
MODEL = '\n[models.m]\nupstreams = ["openai"]\n'


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory with the files that the configs name."""
    directory = tmp_path_factory.mktemp("config")
    (directory / "model.gguf").write_bytes(b"GGUF\x03\xff\xfe")
    (directory / "empty.txt").write_bytes(b"\n")
    (directory / "big.txt").write_bytes(b"k" * 65_537)
    return directory


def problems_of(text, directory):
    """Return the lines of the ConfigError that loading this text raises."""
    path = directory / "gateway.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        gateway_config.load(path, ENVIRON)
    return [line.replace(f"{directory}/", "", 1) for line in caught.value.problems]


def completed(case):
    """Return the case's text with the upstream and the model that it leaves out."""
    text = case["toml"]
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return text
    if not case.get("alone") and "openai" not in raw.get("upstreams", {}):
        text += UPSTREAM
    if not case.get("alone") and "m" not in raw.get("models", {}):
        text += MODEL
    return text


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['path']} {case['says'][:30]}")
def test_each_mistake_is_named_once(case, directory):
    """One mistake gives one line: with the file's line, the key path and what to do."""
    here = next(n for n, line in enumerate(case["toml"].splitlines(), 1) if "# HERE" in line)
    [problem] = problems_of(completed(case), directory)
    place = f"gateway.toml:{here}: " + (f"{case['path']}: " if case["path"] else "")
    assert place == problem[: len(place)]
    assert case["says"] in problem


def test_there_are_enough_mistakes():
    """The table is not emptied by accident, and every part of the file is in it."""
    assert len(CASES) >= 60
    parts = {case["path"].split(".")[0].split("[")[0] for case in CASES}
    assert parts >= {"server", "cache", "keys", "upstreams", "models", ""}


def test_all_mistakes_come_at_once_in_order(directory):
    """A file with several mistakes is reported whole, from its top to its end."""
    text = (
        '[server]\nprot = 1\nworkers = 2\n[upstreams.openai]\nkind = "openai"\n'
        'api_key = "${env:NOT_SET}"\n[models.m]\nupstreams = ["opnai"]\ntruncate = 1\n'
    )
    expected = [
        'gateway.toml:2: server.prot: unknown option; did you mean "port"?',
        "gateway.toml:3: server.workers: every worker would keep vectors of its own, ",
        "gateway.toml:4: upstreams.openai.base_url: is missing; ",
        "gateway.toml:6: upstreams.openai.api_key: the environment variable NOT_SET is not set",
        'gateway.toml:8: models.m.upstreams: no upstream is called "opnai"; ',
        "gateway.toml:9: models.m.truncate: must be true or false, without quotes, not 1",
    ]
    found = problems_of(text, directory)
    cut = [line[: len(start)] for line, start in zip(found, expected, strict=True)]
    assert expected == cut


def test_a_value_that_cannot_be_read_has_no_echo(directory):
    """What rests on a broken value is not reported as a second mistake."""
    text = '[server]\nworkers = 2\n[cache]\nmemory = "lots"\n' + UPSTREAM + MODEL
    [problem] = problems_of(text, directory)
    assert problem.startswith("gateway.toml:4: cache.memory: ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe[server]", ": is not UTF-8 (byte 0)"),
        (b"a = 'b", ": is not TOML: "),
        (b"a = " + b"[" * 50_000, ": is nested too deeply"),
        (b".".join([b"a"] * 3_000) + b" = 1", ": is nested too deeply"),
        (b"[server]\nport = " + b"9" * 5_000, ": is not TOML: "),
    ],
)
def test_a_file_that_is_no_config_is_one_error(content, says, tmp_path):
    """What cannot be read as TOML at all is one plain line, never a traceback."""
    path = tmp_path / "gateway.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        gateway_config.load(path, {})
    [problem] = caught.value.problems
    assert says in problem
    assert problem.startswith(str(path))


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_cannot_be_read_is_one_error(name, tmp_path):
    """An absent file and a directory are told as such."""
    with pytest.raises(ConfigError, match=r"cannot be read: (No such file|Is a directory)"):
        gateway_config.load(tmp_path / name, {})


SECRET = "canary-4f1c"


@pytest.mark.parametrize(
    "text",
    [
        f'server = "{SECRET}"',
        f'[upstreams]\napi_key = "{SECRET}"',
        f'keys = "{SECRET}"',
        f'keys = ["{SECRET}"]',
        f'[[keys]]\nname = "a"\nsecret = ["{SECRET}"]',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "https://u:{SECRET}@h/v1"',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "https://u:{SECRET}\u2100@h/v1"',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "https://h/v1?key={SECRET}"',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "{SECRET}"',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "http://h"\nheaders = "{SECRET}"',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "http://h"\nproxy = "ftp://u:{SECRET}@h"',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "http://h"\napi_key = "{SECRET} "',
        f'[upstreams.o]\nkind = "openai"\nbase_url = "http://h"\napikey = "{SECRET}"',
        '[server]\nlog_level = "${env:CANARY}"',
        '[server]\nport = "${env:CANARY}"',
        '[server]\nhost = "${env:CANARY}/"',
        '[server]\nadmin = "${env:CANARY}"',
        '[server]\nmax_body = "${env:CANARY}"\nrequest_timeout = "${file:canary.txt}"',
        '[models.m]\nupstreams = "${env:CANARY}"\ntruncate = "${env:CANARY}"',
        '[models.m]\nupstreams = ["x"]\ndimensions = "${env:CANARY}"',
    ],
)
def test_no_error_repeats_a_secret(text, tmp_path):
    """A key in the wrong place, or one that a reference names, is in no message."""
    (tmp_path / "canary.txt").write_text(SECRET)
    with pytest.raises(ConfigError) as caught:
        gateway_config.parse(text, source=None, environ={"CANARY": SECRET}, base_dir=tmp_path)
    assert SECRET not in str(caught.value)


def known_keys():
    """Return the header lines and the name of every option there is."""
    tables = {
        "[server]": Server,
        "[cache]": Cache,
        "[[keys]]": Key,
        "[upstreams.openai]": OpenAIUpstream,
        "[upstreams.local]": LlamaUpstream,
        "[models.m]": Model,
    }
    return [(table, field.name) for table, kind in tables.items() for field in fields(kind)]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["${env:KEY}", "${file:big.txt}", "10s", "0", "any", "*", "http://h/v1", "model.gguf", "~/x"]
)
scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats().filter(lambda number: "e" not in repr(number))
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(known_keys()), value=values, home=st.booleans())
@example(key=("[upstreams.local]", "model"), value="x" * 5_000, home=False)
@example(key=("[upstreams.openai]", "base_url"), value="http://[", home=False)
@example(key=("[server]", "port"), value=2**63 - 1, home=False)
def test_no_value_raises_anything_else(key, value, home, directory):
    """Whatever stands behind a known key, the config is used or ConfigError says why not."""
    table, name = key
    text = f"{table}\n{name} = {toml_value(value)}\n"
    assert {name: value}.keys() == _innermost(tomllib.loads(text)).keys()
    environ = ENVIRON | ({"HOME": str(directory)} if home else {})
    text = completed({"toml": text})
    try:
        config = gateway_config.parse(text, source=None, environ=environ, base_dir=directory)
    except ConfigError as error:
        event(f"{name} refused")
        problems = error.problems
        said = problems != [] and all(line.startswith("built-in config") for line in problems)
    else:
        event(f"{name} taken")
        said = isinstance(tomllib.loads(gateway_config.show(config)), dict)
    assert said


def _innermost(raw):
    [(name, table)] = raw.items()
    if name in {"server", "cache"}:
        return table
    return table[0] if isinstance(table, list) else next(iter(table.values()))


@settings(max_examples=100)
@given(st.text(string.printable, max_size=80))
def test_no_text_raises_anything_else(text):
    """Whatever a file holds, loading it raises ConfigError and nothing else."""
    with pytest.raises(ConfigError):
        gateway_config.parse(text, source=None, environ={}, base_dir=Path())
