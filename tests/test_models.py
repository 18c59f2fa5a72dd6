"""What a config says of models, as the routes get it: tasks, names of what answers, prices."""

import time
from pathlib import Path

import pytest
import structlog
from config_texts import parse
from msgspec.structs import replace

from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import Scopes
from gateway.cache.tiered import TieredCache
from gateway.chat_route import ChatModel
from gateway.config import ModelFiles
from gateway.models import engine_endpoint, model_info, models_of
from gateway.spaces.members import Servers
from gateway.spaces.space import Spaces
from tests.backend import Backend

OPENAI = '[upstreams.o]\nkind = "openai"\nbase_url = "http://o/v1"\n'
LLAMA = '[upstreams.l]\nkind = "llama"\nmodel = "builtin:all-minilm-l6-v2"\n'
CHAT = 'task = "chat"\n'


def models(text, base_dir=Path(), files=None):
    """Return the models of a config."""
    config = replace(parse(text, base_dir=base_dir), files=files or {})
    backends = {name: Backend(name) for name in config.upstreams}
    cache = TieredCache(MemoryStore(2**20), [], Scopes(b"s" * 32), log=structlog.get_logger())
    spaces = Spaces(cache, log=structlog.get_logger(), clock=time.monotonic)
    return models_of(config, Servers(config, backends, spaces))


def chat_model(options="", *, upstream=OPENAI, name="m", **others):
    """Return the model that chats of a config with one model and one upstream."""
    served_by = "o" if "[upstreams.o]" in upstream else "l"
    text = f'{upstream}[models."{name}"]\nupstreams = ["{served_by}"]\n{options}'
    [found] = [m for m in models(text, **others) if isinstance(m, ChatModel)]
    return found


@pytest.mark.parametrize(
    ("upstream", "options", "kinds"),
    [
        ("o", "", ["EmbeddingModel", "ChatModel"]),
        ("o", 'task = "embedding"', ["EmbeddingModel"]),
        ("o", CHAT, ["ChatModel"]),
        ("l", "", ["EmbeddingModel"]),
        ("l", 'task = "embedding"', ["EmbeddingModel"]),
        ("l", CHAT, ["ChatModel"]),
    ],
)
def test_what_a_model_does_follows_its_task_and_upstream(upstream, options, kinds):
    """Without a task a server's model does both, and an engine embeds."""
    text = f'{OPENAI}{LLAMA}[models.m]\nupstreams = ["{upstream}"]\n{options}'
    found = models(text)
    assert [type(model).__name__ for model in found] == kinds
    assert {(model.name, model.backend.name) for model in found} == {("m", upstream)}
    assert {model.local for model in found} == {upstream == "l"}


def test_models_keep_the_configs_order():
    """One that does both stands at one place."""
    text = f'{OPENAI}[models."b*"]\nupstreams = ["o"]\n[models.a]\n{CHAT}upstreams = ["o"]\n'
    assert [model.name for model in models(text)] == ["b*", "b*", "a"]


def test_a_chat_model_has_what_the_config_says():
    """Its name upstream, aliases, what is kept, whether anybody is asked, and its prices."""
    options = (
        'upstream_model = "n"\naliases = ["a", "b"]\ncache = "deterministic"\noffline = true\n'
        "price = { input = 1, output = 2.5 }\n"
    )
    store = '[cache]\nstore = "sqlite:///a/b"\n'
    said = chat_model(CHAT + options, upstream=store + OPENAI)
    assert (said.upstream_model, said.aliases, said.cache) == ("n", ("a", "b"), "deterministic")
    assert (said.offline, said.price_in, said.price_out) == (True, 1.0, 2.5)
    usual = chat_model()
    assert (usual.cache, usual.offline) == ("seeded", False)
    assert (usual.price_in, usual.price_out) == (None, None)
    local = chat_model(CHAT, upstream=LLAMA)
    assert (local.price_in, local.price_out) == (0.0, 0.0)
    assert chat_model(upstream=f"[server]\noffline = true\n{store}{OPENAI}").offline


# Identity


def several(options, order='"o", "p"'):
    """Return the chat model on two upstreams, listed in this order."""
    upstreams = f'{OPENAI}[upstreams.p]\nkind = "openai"\nbase_url = "http://p/v1"\n{LLAMA}'
    [model] = models(f"{upstreams}[models.m]\n{CHAT}upstreams = [{order}]\n{options}")
    return model


def test_several_that_may_answer_are_named_together():
    """In any order and with any weights; another name there may be another model."""
    both = several("")
    assert both.identity == several("weights = { o = 1 }", '"p", "o"').identity
    assert both.identity != several('upstream_model = { p = "n" }').identity
    assert both.identity != several("", '"o", "l"').identity
    assert both.identity != chat_model(CHAT).identity
    assert not both.named
    assert both.upstream_model is None


def test_a_model_is_local_only_if_all_of_it_is():
    """A seed means the same answer, and costs nothing, only there."""
    mixed = several("", '"l", "o"')
    assert (mixed.local, mixed.price_in) == (False, None)
    assert several("", '"l"').local


def test_a_space_of_several_is_its_name():
    """Whoever of them makes a vector, it is kept as one of the space."""
    text = f'{OPENAI}{LLAMA}[models.m]\nspace = "s"\nupstreams = ["l", "o"]\n'
    [model] = models(text)
    assert (model.identity, model.named) == ("space\ns", False)
    assert (model.local, model.token_ids, model.price) == (False, "decode", None)
    assert not model.knows_ids


def test_what_answers_upstream_is_an_address():
    """Another address or query may be another model; its name there is added by the route."""
    query = 'query = { api-version = "2" }\n'
    identities = [
        chat_model().identity,
        chat_model(upstream=OPENAI.replace("/v1", "/v2")).identity,
        chat_model(upstream=OPENAI + query).identity,
    ]
    assert identities[0] == "chat\nopenai\nhttp://o/v1\n[]"
    assert len(set(identities)) == 3
    same = [
        chat_model(CHAT).identity,
        chat_model('space = "s"').identity,
        chat_model(name="n").identity,
        chat_model(upstream=OPENAI + 'api_key = "k"\n').identity,
    ]
    assert set(same) == {identities[0]}
    assert chat_model().named


def test_what_answers_here_is_a_file_a_template_and_a_length(tmp_path):
    """Whatever changes what the model is asked, or where its answer ends, names other answers."""
    bundled = parse(LLAMA + '[models.m]\nupstreams = ["l"]').upstreams["l"].model
    (tmp_path / "other.gguf").write_bytes(bundled.read_bytes() + b"\0")
    (tmp_path / "one.jinja").write_text("one")
    (tmp_path / "two.jinja").write_text("two")
    (tmp_path / "same.jinja").write_text("one")
    other = LLAMA.replace("builtin:all-minilm-l6-v2", "other.gguf")

    def identity(upstream):
        return chat_model(CHAT, upstream=upstream, base_dir=tmp_path).identity

    found = [
        identity(LLAMA),
        identity(other),
        identity(f"{LLAMA}n_ctx = 64\n"),
        identity(f'{LLAMA}chat_template = "one.jinja"\n'),
        identity(f'{LLAMA}chat_template = "two.jinja"\n'),
    ]
    assert len(set(found)) == len(found)
    assert all(one.startswith("chat\ngguf\n") for one in found)
    assert identity(f'{LLAMA}chat_template = "same.jinja"\n') == found[3]
    assert identity(f"{LLAMA}threads = 2\ncontexts = 2\n") == found[0]
    assert not chat_model(CHAT, upstream=LLAMA).named


def test_files_that_were_read_at_the_start_are_not_read_again(tmp_path):
    """A worker that takes another one's place says what the engine runs, not what is there now."""
    (tmp_path / "t.jinja").write_text("changed")
    upstream = f'{LLAMA}chat_template = "t.jinja"\n'
    first = chat_model(
        CHAT, upstream=upstream, base_dir=tmp_path, files={"l": ModelFiles("1" * 64, "as it was")}
    )
    (tmp_path / "t.jinja").write_text("as it was")
    again = chat_model(CHAT, upstream=upstream, base_dir=tmp_path)
    assert first.identity.split("\n")[2] == "1" * 64
    assert first.identity.split("\n")[3:] == again.identity.split("\n")[3:]
    text = f'{LLAMA}[models.m]\nupstreams = ["l"]'
    [embeds] = models(text, files={"l": ModelFiles("1" * 64, None)})
    assert f"gguf\n{'1' * 64}\n" in embeds.identity


def test_what_is_known_of_a_local_model_is_of_its_task():
    """Before it runs, by its file: a chat model has no width and no pooling."""
    upstream = parse(LLAMA + '[models.m]\nupstreams = ["l"]').upstreams["l"]
    embeds, chats = model_info(upstream), model_info(upstream, chat=True)
    assert (embeds.width, embeds.context, embeds.pooling) == (384, 512, "mean")
    assert (chats.width, chats.context, chats.pooling) == (None, 512, None)


def calls(options="", *, chat=False):
    """Return how an engine is called: so many at a time, waiting, and of a key; texts in each."""
    config = parse(f'{LLAMA}contexts = 2\n{options}\n[models.m]\nupstreams = ["l"]')
    found = engine_endpoint(config.upstreams["l"], 2, chat=chat)
    return found.concurrency, found.max_queue, found.max_queue_per_key, found.max_batch


def test_an_engine_is_never_given_more_than_its_own_queue_takes():
    """Chats wait in the gateway, where each key has its turn; the engine is given the next two."""
    assert calls() == (64, 1024, 512, 16)
    assert calls(chat=True) == (4, 256, 128, 1)
    assert calls("max_queue = 100") == (6, 6, 3, 16)
    assert calls("max_queue = 3") == (1, 1, 1, 3)
    assert calls("max_queue = 1", chat=True) == (3, 1, 1, 1)
    assert calls("concurrency = 5\nmax_queue_per_key = 9") == (5, 1024, 9, 16)
    assert calls("concurrency = 5", chat=True) == (5, 256, 128, 1)
