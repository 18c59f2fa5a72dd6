"""The config's values: secrets that show nowhere, addresses, and models with their defaults."""

import hashlib
import tomllib

import msgspec
import pytest
from config_texts import ENVIRON, MODEL, SAMPLE, UPSTREAM, model, parse

from gateway import config as gateway_config
from gateway.config import Digest, Secret
from gateway.errors import ConfigError

# Secrets


def test_secrets_show_nowhere_but_where_asked():
    """No repr, no text, no encoder and no `show` gives a secret away."""
    text = SAMPLE.replace(
        "api_key",
        'headers = { x-pass = "canary-header", x-team = "${env:SEARCH_TEAM_KEY}", x-y = "plain" }\n'
        'query = { sig = "canary-query", api-version = "2024" }\n'
        'proxy = "http://me:canary-proxy@proxy:3128"\napi_key',
    )
    config = parse(text)
    shown = gateway_config.show(config)
    assert "canary" not in repr(config) + str(config) + shown
    assert "canary" not in f"{config.keys[0].secret}{config.upstreams['openai'].api_key}"
    with pytest.raises(TypeError):
        msgspec.json.encode(config.upstreams["openai"])
    openai = tomllib.loads(shown)["upstreams"]["openai"]
    assert {"x-pass": "***", "x-team": "***", "x-y": "plain"} == openai["headers"]
    assert {"sig": "***", "api-version": "2024"} == openai["query"]
    assert ("***", "http://***@proxy:3128") == (openai["api_key"], openai["proxy"])
    assert config.upstreams["openai"].headers["x-pass"].reveal() == "canary-header"
    assert config.upstreams["openai"].proxy.reveal() == "http://me:canary-proxy@proxy:3128"


def test_a_client_key_is_kept_as_its_digest():
    """The key itself is not kept; it is known again, given plainly or as its SHA-256."""
    digest = hashlib.sha256(b"canary-client-key").hexdigest()
    for secret in ("${env:SEARCH_TEAM_KEY}", f"sha256:{digest.upper()}"):
        text = f'[[keys]]\nname = "a"\nsecret = "{secret}"\n' + UPSTREAM + MODEL
        [key] = parse(text).keys
        assert key.secret == Digest.of("canary-client-key")
        assert key.secret.matches("canary-client-key")
        assert not key.secret.matches("canary-client-ke")
        assert not key.secret.matches("\udcff")


def test_equal_secrets_are_equal():
    """Secrets can be compared and be keys of a table, also of their own kind only."""
    assert {Secret("a")} == {Secret("a", in_file=True), Secret("a")}
    assert {Digest.of("a")} == {Digest.of("a", in_file=True)}
    assert Secret("a") not in {"a", Digest.of("a")}


# Upstreams and models

ADDRESSES = {
    "https://api.openai.com/v1/": "https://api.openai.com/v1",
    "HTTP://LOCALHOST:11434/v1": "http://LOCALHOST:11434/v1",
    "http://[::1]:9000": "http://[::1]:9000",
    "https://x.openai.azure.com/openai/deployments/d/": "https://x.openai.azure.com/openai/deployments/d",
}


@pytest.mark.parametrize(("written", "kept"), ADDRESSES.items())
def test_an_address_is_kept_without_its_last_slash(written, kept):
    """A base_url is what stands before /embeddings."""
    text = UPSTREAM.replace("https://example.com/v1", written) + MODEL
    assert kept == parse(text).upstreams["o"].base_url


def test_another_gateway_on_this_machine_is_no_loop():
    """Only the gateway's own port on loopback is refused as an upstream."""
    for url in ("http://127.0.0.1:8001/v1", "http://10.0.0.1:8000/v1"):
        parse(UPSTREAM.replace("https://example.com/v1", url) + MODEL)
    elsewhere = '[server]\nhost = "10.0.0.1"\n'
    parse(elsewhere + UPSTREAM.replace("https://example.com/v1", "http://127.0.0.1:8000") + MODEL)


def test_aliases_are_a_list_or_have_prefixes():
    """A list of aliases takes the model's prefix; a table gives each its own, or none."""
    assert {"a": None, "b": None} == model('aliases = ["a", "b"]').aliases
    table = 'prefix = "p: "\naliases = { q = { prefix = "query: " }, r = { prefix = "" }, s = {} }'
    assert {"q": "query: ", "r": "", "s": None} == model(table).aliases


@pytest.mark.parametrize(
    ("name", "options", "widths"),
    [
        ("text-embedding-3-large", "", "any"),
        ("text-embedding-3-*", "", "any"),
        ("text-embedding-ada-002", "", "native"),
        ("small", 'upstream_model = "text-embedding-3-small"', "any"),
        ("text-embedding-3-large", 'dimensions = "native"', "native"),
        ("m", "dimensions = [512, 256, 512]", (512, 256)),
    ],
)
def test_widths_follow_the_config_or_the_name(name, options, widths):
    """Without `dimensions`, only OpenAI's third generation may be shortened."""
    assert widths == model(options, name).dimensions_for(name)


@pytest.mark.parametrize(
    ("name", "options", "local", "meaning"),
    [
        ("text-embedding-3-small", "", False, "decode"),
        ("m", "", False, "native"),
        ("m", "", True, "decode"),
        ("m", 'tokenizer = "cl100k_base"', False, "decode"),
        ("m", 'upstream_model = "text-embedding-3-small"', False, "decode"),
        ("m", 'prefix = "query: "', False, "reject"),
        ("m", 'aliases = { q = { prefix = "query: " } }', False, "reject"),
        ("m", 'token_ids = "reject"', True, "reject"),
        ("m", 'token_ids = "decode"\nprefix = "query: "', False, "decode"),
    ],
)
def test_token_ids_follow_the_config_or_the_name(name, options, local, meaning):
    """Without `token_ids`, ids are text where their vocabulary is known."""
    assert meaning == model(options, name).token_ids_for(name, local=local)


@pytest.mark.parametrize(
    ("name", "options", "local", "price"),
    [
        ("text-embedding-3-small", "", False, 0.02),
        ("text-embedding-3-large", "", False, 0.13),
        ("text-embedding-ada-002", "", False, 0.1),
        ("text-embedding-3-*", "", False, None),
        ("m", "", False, None),
        ("m", "", True, 0.0),
        ("small", 'upstream_model = "text-embedding-3-small"', False, 0.02),
        ("text-embedding-3-small", 'upstream_model = "mine"', False, None),
        ("text-embedding-3-small", "price = 0", False, 0.0),
        ("m", "price = 3", True, 3.0),
        ("m", 'price = "${env:PRICE}"', False, 0.5),
    ],
)
def test_a_price_follows_the_config_or_the_table(name, options, local, price):
    """Without `price`, OpenAI's models cost what its list says, and local ones nothing."""
    assert price == model(options, name, ENVIRON | {"PRICE": "0.5"}).price_for(name, local=local)


def test_the_price_under_a_pattern_is_that_of_the_name():
    """What is asked for is looked up, not the pattern that it fits."""
    third = model("", "text-embedding-3-*")
    assert third.price_for("text-embedding-3-large", local=False) == 0.13
    assert third.price_for("text-embedding-3-huge", local=False) is None


def test_patterns_of_different_length_may_overlap():
    """The longer fixed part wins, so there is no tie to refuse."""
    names = ["*", "text-*", "text-embedding-*", "text-embedding-3-*", "gpt-*", "omni-*"]
    models = "".join(f'[models."{name}"]\nupstreams = ["o"]\n' for name in names)
    assert names[:4] == list(parse(UPSTREAM + models.split('[models."gpt')[0]).models)
    with pytest.raises(ConfigError, match="neither is more specific"):
        parse(UPSTREAM + '[models."a*"]\nupstreams = ["o"]\n[models."*b"]\nupstreams = ["o"]\n')
    parse(UPSTREAM + models)


# Chat


@pytest.mark.parametrize(
    ("options", "embedding", "chat"),
    [
        ("", "always", "seeded"),
        ('cache = "always"', "always", "always"),
        ('cache = "off"', "off", "off"),
        ('cache = "deterministic"\ntask = "chat"', None, "deterministic"),
        ('cache = "seeded"\ntask = "chat"', None, "seeded"),
    ],
)
def test_what_is_kept_follows_the_config_or_the_task(options, embedding, chat):
    """Every vector by default, and of chats those that a seed names."""
    read = model(options)
    assert embedding in {None, read.cache_for("embedding")}
    assert chat == read.cache_for("chat")


def test_a_chat_is_priced_by_what_goes_in_and_out():
    """Two prices or none, as a list of ours would soon be wrong; local models cost nothing."""
    both = "price = { input = 0.15, output = 0.6 }"
    assert (0.15, 0.6) == model(both).chat_price(local=False)
    assert model(both).price_for("m", local=False) == 0.15
    assert model("").chat_price(local=False) is None
    assert model("price = 0.02").chat_price(local=False) is None
    assert model("").chat_price(local=True) == (0.0, 0.0)


LLAMA = '[upstreams.l]\nkind = "llama"\nmodel = "builtin:all-minilm-l6-v2"\n'


def llama(options=""):
    """Return a llama upstream with further options."""
    return parse(f'{LLAMA}{options}\n[models.m]\nupstreams = ["l"]\n').upstreams["l"]


def test_an_engine_for_chat_has_one_context_and_every_core():
    """A chat's memory is large and its texts depend on each other; the config may say otherwise."""
    usual = llama()
    assert (1, None) == (usual.contexts_for(chat=True), usual.threads_for(chat=True))
    assert (None, 1) == (usual.contexts_for(chat=False), usual.threads_for(chat=False))
    told = llama("contexts = 3\nthreads = 2")
    for chat in (True, False):
        assert (3, 2) == (told.contexts_for(chat=chat), told.threads_for(chat=chat))


@pytest.mark.parametrize(
    ("options", "trained", "chat", "context"),
    [
        ("", 512, False, 512),
        ("", 131_072, False, 131_072),
        ("", 512, True, 512),
        ("", 131_072, True, 8192),
        ("n_ctx = 32768", 131_072, True, 32_768),
        ("n_ctx = 32768", 512, True, 512),
        ("n_ctx = 256", 512, False, 256),
        ("", 0, True, 0),
        ("n_ctx = 256", 0, True, 256),
        ("n_ctx = 256", 0, False, 256),
    ],
)
def test_the_longest_chat_is_bounded(options, trained, chat, context):
    """What a model was trained for may need more memory than there is; more than that is no use."""
    assert context == llama(options).context_for(trained, chat=chat)


@pytest.mark.parametrize(
    ("models", "chats"),
    [
        ('[models.a]\nupstreams = ["l"]', False),
        ('[models.a]\nupstreams = ["l"]\ntask = "embedding"', False),
        ('[models.a]\nupstreams = ["l"]\ntask = "chat"', True),
        ('[models.a]\nupstreams = ["l"]\ntask = "chat"\n[models.b]\nupstreams = ["o"]', True),
    ],
)
def test_a_llama_upstream_chats_where_a_model_says_so(models, chats):
    """It runs one engine, for one task; without a word it embeds."""
    assert parse(UPSTREAM + LLAMA + models).chats("l") == chats
    assert not parse(UPSTREAM + LLAMA + models).chats("o")


def test_a_chat_template_is_a_file(tmp_path):
    """A relative one starts at the config; a name stands for one of ours, and is shown as that."""
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    text = '[models.m]\ntask = "chat"\nupstreams = ["l"]\n'
    for written in ("mine.jinja", "./mine.jinja", f"{tmp_path}/mine.jinja"):
        config = parse(f'{LLAMA}chat_template = "{written}"\n{text}', base_dir=tmp_path)
        assert config.upstreams["l"].chat_template == tmp_path / "mine.jinja"
    for name in ("chatml", "gemma", "llama3", "mistral"):
        config = parse(f'{LLAMA}chat_template = "{name}"\n{text}')
        assert config.upstreams["l"].chat_template.stem == name
        assert f'chat_template = "{name}"' in gateway_config.show(config)
