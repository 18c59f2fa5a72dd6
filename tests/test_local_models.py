"""Local models at a start: their files are read once, and their engines told what they are for."""

import asyncio
import hashlib
from pathlib import Path

import msgspec
import pytest
from config_texts import parse

from gateway.config import ModelFiles
from gateway.edge.server import StartError
from gateway.engine.settings import decode_settings
from gateway.running.local_models import engine_settings, with_files

BUNDLED = parse(
    '[upstreams.l]\nkind = "llama"\nmodel = "builtin:all-minilm-l6-v2"\n'
    '[models.m]\nupstreams = ["l"]'
)
MODEL = BUNDLED.upstreams["l"].model
SHA256 = hashlib.sha256(MODEL.read_bytes()).hexdigest()
SECOND = """
    [upstreams.chats]
    kind = "llama"
    model = "builtin:all-minilm-l6-v2"
    {options}
    [models.c]
    task = "chat"
    upstreams = ["chats"]
    [upstreams.embeds]
    kind = "llama"
    model = "builtin:all-minilm-l6-v2"
    [models.e]
    upstreams = ["embeds"]
"""


def with_second(options="", base_dir=Path()):
    """Return the config of an upstream that chats beside one that embeds."""
    return parse(SECOND.format(options=options), base_dir=base_dir)


def told(config, name, directory=Path("/d")):
    """Return what the engine of an upstream understands of what it is told."""
    config = asyncio.run(with_files(config))
    settings = engine_settings(name, config.upstreams[name], config, directory)
    return decode_settings(msgspec.json.encode(settings))


def test_the_files_are_named_by_their_bytes(tmp_path):
    """Each model by its digest, and a template of the config by its text."""
    (tmp_path / "t.jinja").write_text("é {{ messages }}\n")
    config = with_second('chat_template = "t.jinja"', tmp_path)
    assert config.files == {}
    assert asyncio.run(with_files(config)).files == {
        "chats": ModelFiles(SHA256, "é {{ messages }}\n"),
        "embeds": ModelFiles(SHA256, None),
    }


def test_a_start_without_local_models_reads_nothing():
    """There is nothing to wait for."""
    config = parse(
        '[upstreams.o]\nkind = "openai"\nbase_url = "http://o"\n[models.m]\nupstreams = ["o"]'
    )
    assert asyncio.run(with_files(config)) == config


def test_another_file_than_the_config_says_is_refused():
    """The message has the digest of the file that is there, to be put in its place."""
    wrong = with_second(f'sha256 = "{"0" * 64}"')
    with pytest.raises(StartError, match=rf"upstreams\.chats\.sha256: .* SHA-256 is {SHA256}"):
        asyncio.run(with_files(wrong))
    right = with_second(f'sha256 = "{SHA256.upper()}"')
    assert asyncio.run(with_files(right)).files["chats"].sha256 == SHA256


def test_a_file_that_is_no_model_is_refused(tmp_path):
    """The upstream is named, as there may be several."""
    (tmp_path / "cut.gguf").write_bytes(MODEL.read_bytes()[:100])
    config = parse(
        '[upstreams.l]\nkind = "llama"\nmodel = "cut.gguf"\n[models.m]\nupstreams = ["l"]',
        base_dir=tmp_path,
    )
    with pytest.raises(StartError, match=r"upstreams\.l\.model: .*cut\.gguf is cut short"):
        asyncio.run(with_files(config))


def test_an_engine_is_told_its_task_and_what_goes_with_it(tmp_path):
    """Both sides understand each other: one context and every core to chat, else the reverse."""
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    config = with_second('chat_template = "t.jinja"\nn_ctx = 64', tmp_path)
    chats, embeds = told(config, "chats"), told(config, "embeds")
    assert ("chat", 1, None, 64) == (chats.task, chats.contexts, chats.threads, chats.n_ctx)
    assert (SHA256, "{{ messages }}") == (chats.weights, chats.chat_template)
    assert ("embedding", None, 1, None) == (
        embeds.task, embeds.contexts, embeds.threads, embeds.n_ctx,
    )  # fmt: skip
    assert (SHA256, None) == (embeds.weights, embeds.chat_template)
    assert chats.journal != embeds.journal
    assert chats.journal_key != embeds.journal_key
