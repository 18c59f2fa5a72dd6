"""The options of the server, the cache, the keys and the upstreams: type, default, limits, meaning.

Reading, the JSON Schema, `check --show` and the tests walk these Structs and `schema`'s; nothing
else lists options. They know nothing of the file. Times are seconds, sizes bytes, paths absolute.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.config.addresses import BASE_URL, FORWARDERS, HOST, LISTENER, MODEL, PATH, PROXY
from gateway.config.forms import DURATION, SIZE, about
from gateway.config.secret import DIGEST, LONG_SECRET, SECRET, SECRET_TABLE, Digest, Secret
from gateway.config.stores import STORE, StoreAddress

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Name = Annotated[str, Meta(min_length=1)]


class Server(Struct, frozen=True, kw_only=True):
    """Where the gateway listens and how it behaves there."""

    host: Annotated[
        str, about("Address to listen on. Without keys, keep it on loopback.", "::1", form=HOST)
    ] = "127.0.0.1"
    port: Annotated[Port, about("Port to listen on; 0 takes any free one.")] = 8000
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)],
        about("Worker processes. More than one needs a store that they share, or memory = 0."),
    ] = 1
    admin: Annotated[
        str | None,
        about(
            "A listener of its own for the console page and the metrics, without keys.",
            "127.0.0.1:9090",
            form=LISTENER,
        ),
    ] = None
    tls_cert: Annotated[
        Path | None, about("Certificate chain (PEM) to serve HTTPS with.", form=PATH)
    ] = None
    tls_key: Annotated[Path | None, about("Private key (PEM) of tls_cert.", form=PATH)] = None
    forwarded_allow_ips: Annotated[
        str | None,
        about(
            "Proxies whose X-Forwarded-For and -Proto are believed: addresses and networks with "
            "commas between them, or *. Nobody's unless set.",
            "10.0.0.0/8",
            form=FORWARDERS,
        ),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        about("The least that is logged. Texts and keys are logged at no level."),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        about("Log lines as JSON or for people; auto asks whether a terminal reads them."),
    ] = "auto"
    request_timeout: Annotated[
        float,
        about("How long one request may take in all, retries included.", "120s", form=DURATION),
    ] = 120.0
    max_body: Annotated[int, about("Largest request body that is read.", "16MiB", form=SIZE)] = (
        16 * 2**20
    )
    offline: Annotated[
        bool,
        about(
            "Answer from the cache only; nothing is asked upstream and no engine is started. "
            "What is only needed to ask upstreams, such as their keys, may then be missing."
        ),
    ] = False


class Cache(Struct, frozen=True, kw_only=True):
    """What is kept, so that one text has one vector and is asked for once."""

    memory: Annotated[
        int,
        about("Vectors kept in each worker's memory; 0 turns this off.", "256MiB", form=SIZE),
    ] = 256 * 2**20
    store: Annotated[
        tuple[StoreAddress, ...],
        about(
            "Where vectors last: a SQLite file, a Redis or Valkey server or cluster, or a list of "
            "both, nearest first. The last one has the last word. Without any, memory only.",
            "sqlite:///var/lib/embedding-gateway/cache.db",
            "rediss://gateway:${env:REDIS_PASSWORD}@redis:6379/0",
            form=STORE,
        ),
    ] = ()
    secret: Annotated[
        Secret | None,
        about(
            "Keys the digests that vectors are stored under; at least 16 characters. All who "
            "share a store need the same. Without it, one is made and kept with the store.",
            "${env:CACHE_SECRET}",
            form=LONG_SECRET,
        ),
    ] = None
    ttl: Annotated[
        float | None,
        about(
            "How long a vector is kept, in memory too; without it, for ever.", "30d", form=DURATION
        ),
    ] = None
    store_size: Annotated[
        int | None,
        about(
            "Most bytes of a SQLite store, at least 1MiB; without it, no bound. Redis has "
            "maxmemory.",
            "10GiB",
            form=SIZE,
        ),
    ] = None


class Key(Struct, frozen=True, kw_only=True):
    """One client's key. Without any, whoever reaches the address may call."""

    name: Annotated[Name, about("Who holds the key, for logs and metrics.", "search-team")]
    secret: Annotated[
        Digest,
        about(
            'The key, at least 8 characters, or "sha256:" and its SHA-256 in hexadecimal.',
            "${env:SEARCH_TEAM_KEY}",
            form=DIGEST,
        ),
    ]
    models: Annotated[
        tuple[Name, ...],
        Meta(min_length=1),
        about("Models this key may use; * stands for any characters.", ["text-embedding-3-*"]),
    ] = ("*",)
    tenant: Annotated[
        Name, about("Keys of one tenant share cached vectors; tenants never do.", "search")
    ] = "default"
    admin: Annotated[bool, about("May also see the console page and the metrics.")] = False


class OpenAIUpstream(Struct, frozen=True, kw_only=True):
    """Any server that speaks the OpenAI API."""

    kind: Annotated[Literal["openai"], about("A server that speaks the OpenAI API.")] = "openai"
    base_url: Annotated[
        str,
        about("Its address, up to and with /v1.", "https://api.openai.com/v1", form=BASE_URL),
    ]
    api_key: Annotated[
        Secret | None, about("The key it wants.", "${env:OPENAI_API_KEY}", form=SECRET)
    ] = None
    timeout: Annotated[float, about("How long one attempt may take.", "60s", form=DURATION)] = 60.0
    connect_timeout: Annotated[
        float, about("How long connecting may take.", "5s", form=DURATION)
    ] = 5.0
    max_batch: Annotated[
        Annotated[int, Meta(ge=1, le=2048)],
        about("Most texts it takes in one call; larger requests are split."),
    ] = 2048
    concurrency: Annotated[Count, about("Most calls to it at the same time, per worker.")] = 64
    headers: Annotated[
        dict[str, Secret],
        about("Headers sent with every call.", {"x-team": "search"}, form=SECRET_TABLE),
    ] = {}
    query: Annotated[
        dict[str, Secret],
        about("Query parameters of every call.", {"api-version": "2024-10-21"}, form=SECRET_TABLE),
    ] = {}
    auth_header: Annotated[
        Name,
        about(
            "Header that carries api_key: authorization as `Bearer KEY`, any other as it is.",
            "api-key",
        ),
    ] = "authorization"
    proxy: Annotated[
        Secret | None,
        about(
            "Proxy to go through; without it HTTPS_PROXY is honoured.",
            "http://proxy:3128",
            form=PROXY,
        ),
    ] = None
    ca_file: Annotated[
        Path | None,
        about("Certificate authorities (PEM) to trust instead of the system's.", form=PATH),
    ] = None
    order: Annotated[
        Literal["index", "position"],
        about("Where items come without an index: refuse them, or trust their position."),
    ] = "index"
    encoding: Annotated[
        Literal["base64", "float", "none"],
        about("The encoding_format to ask for; none sends no such field. Answers may be either."),
    ] = "base64"


class LlamaUpstream(Struct, frozen=True, kw_only=True):
    """A GGUF file, run here by llama.cpp in a child process."""

    kind: Annotated[Literal["llama"], about("A GGUF file, run here by llama.cpp.")] = "llama"
    model: Annotated[
        Path,
        about("The GGUF file, or a bundled model.", "builtin:all-minilm-l6-v2", form=MODEL),
    ]
    contexts: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        about("Texts decoded at the same time; default one per core."),
    ] = None
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)],
        about("Threads for each text. One is best; the vectors are the same with more."),
    ] = 1
    n_ctx: Annotated[
        Count | None, about("Longest text in tokens; default what the model was trained for.")
    ] = None
    pooling: Annotated[
        Literal["mean", "cls", "last"] | None,
        about("How a text's token vectors become one; default what the file says."),
    ] = None
    gpu_layers: Annotated[
        Annotated[int, Meta(ge=-1, le=100_000)],
        about("Layers to put on the GPU, -1 for all. Needs a GPU build of llama.cpp."),
    ] = 0
    sha256: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}$")] | None,
        about("The file's SHA-256; another file is refused at start."),
    ] = None
    load: Annotated[Literal["start", "first-use"], about("When the model is loaded.")] = "start"
    idle: Annotated[
        float | None,
        about(
            'Unload after so long without a call (with load = "first-use").', "10m", form=DURATION
        ),
    ] = None
    concurrency: Annotated[Count, about("Most calls to it at the same time, per worker.")] = 256
    max_queue: Annotated[Count, about("Most texts waiting; beyond it requests get a 503.")] = 16384
