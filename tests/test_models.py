"""What a config says of models, as the routes get it: tasks, names of what answers, prices."""

from pathlib import Path

import pytest
from config_texts import parse
from msgspec.structs import replace

from gateway.chat_route import ChatModel
from gateway.config import ModelFiles
from gateway.models import model_info, models_of
from tests.backend import Backend

OPENAI = '[upstreams.o]\nkind = "openai"\nbase_url = "http://o/v1"\n'
LLAMA = '[upstreams.l]\nkind = "llama"\nmodel = "builtin:all-minilm-l6-v2"\n'
CHAT = 'task = "chat"\n'


def models(text, base_dir=Path(), files=None):
    """Return the models of a config."""
    config = replace(parse(text, base_dir=base_dir), files=files or {})
    return models_of(config, {name: Backend(name) for name in config.upstreams})


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
