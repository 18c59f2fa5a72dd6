"""The config file and the environment, which are read here and nowhere else.

`load`, `parse` and `default` give a frozen Config that has passed every check, or raise one
ConfigError that holds all that is wrong, each with file, line, key path and a hint. Nothing here
knows HTTP, backends or caches; below the composition root nobody sees a Config.
"""

from gateway.config.addresses import host_and_port, is_loopback
from gateway.config.describe import json_schema
from gateway.config.load import default, load, parse, with_server
from gateway.config.options import Cache, Key, Server
from gateway.config.patterns import is_pattern
from gateway.config.prices import ChatPrice
from gateway.config.schema import CachePolicy, Config, Model, ModelFiles, Upstream
from gateway.config.secret import Digest, Secret, is_key
from gateway.config.show import show
from gateway.config.stores import RedisAddress, SqliteAddress, StoreAddress
from gateway.config.upstreams import LlamaUpstream, OpenAIUpstream

__all__ = [
    "Cache",
    "CachePolicy",
    "ChatPrice",
    "Config",
    "Digest",
    "Key",
    "LlamaUpstream",
    "Model",
    "ModelFiles",
    "OpenAIUpstream",
    "RedisAddress",
    "Secret",
    "Server",
    "SqliteAddress",
    "StoreAddress",
    "Upstream",
    "default",
    "host_and_port",
    "is_key",
    "is_loopback",
    "is_pattern",
    "json_schema",
    "load",
    "parse",
    "show",
    "with_server",
]
