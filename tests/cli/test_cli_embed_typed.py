"""`gateway embed`: what is typed and cannot be meant."""

from pathlib import Path

import pytest

from tests.cli.commands import gateway, started
from tests.cli.lines import TEXTS, written
from tests.cli.stored import held

URL = ["--url", "http://127.0.0.1:9/v1", "-m", "m"]


@pytest.mark.parametrize("key", ["ключ", "sk-secret\n", "sk-secret x", "sk-s\u00e9cret", "sk-\x7f"])
@pytest.mark.parametrize("variable", [None, "OPENAI_API_KEY", "GATEWAY_API_KEY"])
def test_a_key_that_cannot_be_sent_is_refused(tmp_path, key, variable):
    """Wherever it is from; it is not shown, and no address is blamed for it."""
    words = ["embed", *URL, "-i", written(tmp_path, TEXTS)]
    if variable is None:
        refused = gateway(*words, "--api-key", key, code=2)
    else:
        refused = gateway(*words, code=2, **{variable: key})
    assert "printable ASCII characters only" in refused.stderr
    assert key.strip() not in refused.output
    assert "secret" not in refused.output


def test_a_key_that_is_sent_to_nobody_may_be_any(config, tmp_path):
    """The gateway of the config has upstreams with keys of their own."""
    words = ["embed", "-c", config, "-m", "m", "-i", written(tmp_path, TEXTS)]
    gateway(*words, "-o", tmp_path / "out", OPENAI_API_KEY="ключ")


def test_a_tenant_is_not_for_a_server(tmp_path):
    """It goes by the key."""
    words = ["embed", *URL, "-i", written(tmp_path, TEXTS), "--tenant", "t"]
    assert "knows the tenant by the key" in gateway(*words, code=2).stderr


@pytest.mark.parametrize("way", ["itself", "a link", "another name", "another path"])
def test_vectors_never_take_the_place_of_their_texts(tmp_path, way):
    """By whatever name the file is called."""
    file = written(tmp_path, TEXTS)
    out = tmp_path / "out"
    match way:
        case "itself":
            out = file
        case "a link":
            out.symlink_to(file)
        case "another name":
            out.hardlink_to(file)
        case "another path":
            out = tmp_path / ".." / tmp_path.name / file.name
    before = file.read_bytes()
    for source, target in ((file, out), (out, file)):
        refused = gateway("embed", *URL, "-i", source, "-o", target, code=2)
        assert "its texts would be gone" in refused.stderr
    assert file.read_bytes() == before


def test_a_shell_gives_no_file_twice_either(tmp_path):
    """`gateway embed < texts >> texts` would read its own vectors, and never end."""
    file = written(tmp_path, TEXTS)
    before = file.read_bytes()
    with file.open("rb") as reading, file.open("ab") as writing:
        for words in ([], ["-i", file], ["-o", file]):
            process = started("embed", *URL, *words, stdin=reading, stdout=writing)
            _, said = process.communicate(timeout=30)
            assert process.returncode == 2
            assert b"its texts would be gone" in said
    assert file.read_bytes() == before


def test_what_is_no_file_may_be_both(fake_openai):
    """As a terminal is, or /dev/null."""
    null = Path("/dev/null")
    gateway("embed", "--url", fake_openai.base_url, "-m", "m", "-i", null, "-o", null)


KEYS = """
    [[keys]]
    name = "k"
    secret = "the-key-of-red"
    tenant = "red"
    models = ["o"]
    [[keys]]
    name = "l"
    secret = "the-key-of-blue"
    tenant = "blue"
"""


def test_vectors_are_a_tenants(config, tmp_path):
    """One that a key of the config has, or nobody would find them; without keys, anyone's."""
    words = ["embed", "-c", config, "-m", "m", "-i", written(tmp_path, TEXTS)]
    words += ["-o", tmp_path / "out"]
    gateway(*words)
    assert held(config) == {("default", "m", 0): 50}
    config.write_text(config.read_text() + KEYS)
    for tenant, typed in (("default", []), ("rad", ["--tenant", "rad"])):
        refused = gateway(*words, *typed, code=1).stderr
        assert f"no key of this config has the tenant '{tenant}'" in refused
        assert "there is blue, red" in refused
    gateway(*words, "--tenant", "red")
    assert held(config) == {("default", "m", 0): 50, ("red", "m", 0): 50}
