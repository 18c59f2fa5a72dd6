"""The options of the server, the cache and the keys: type, default, limits, meaning.

Reading, the JSON Schema, `check --show` and the tests walk these Structs and those of `upstreams`
and `schema`; nothing else lists options. They know nothing of the file. Times are seconds, sizes
bytes, paths absolute.
"""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.config.addresses import FORWARDERS, HOST, LISTENER, PATH
from gateway.config.forms import DURATION, PAUSE, SIZE, about
from gateway.config.prices import BUDGET
from gateway.config.secret import DIGEST, LONG_SECRET, Digest, Secret
from gateway.config.stores import STORE, StoreAddress
from gateway.config.visitors import HOSTS, ORIGINS

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Limit = Annotated[int, Meta(ge=1, le=10**9)]
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
        about(
            "How long one request for embeddings may take in all, retries included.",
            "120s",
            form=DURATION,
        ),
    ] = 120.0
    chat_timeout: Annotated[
        float,
        about(
            "How long a chat may take until its whole answer is there, or the next piece of a "
            "stream.",
            "10m",
            form=DURATION,
        ),
    ] = 600.0
    max_body: Annotated[int, about("Largest request body that is read.", "16MiB", form=SIZE)] = (
        16 * 2**20
    )
    max_header: Annotated[
        int, about("Largest headers that are read, with the request line.", "32KiB", form=SIZE)
    ] = 32 * 2**10
    header_timeout: Annotated[
        float,
        about("How long the headers of a request may take to come.", "10s", form=DURATION),
    ] = 10.0
    body_timeout: Annotated[
        float,
        about(
            "The time in which a body has to come on, and an answer to be read on, by 1 kB a "
            "second; who is slower is cut off.",
            "10s",
            form=DURATION,
        ),
    ] = 10.0
    hosts: Annotated[
        tuple[str, ...],
        about(
            "Names under which the gateway may be called, with *. for all below one; IP addresses "
            "always may. Without any, every name.",
            ["gateway.example.com"],
            form=HOSTS,
        ),
    ] = ()
    origins: Annotated[
        tuple[str, ...],
        about(
            "Web pages that may call the gateway from a browser (CORS), by their origin, or * for "
            "all. Without keys, pages of other origins are refused otherwise.",
            ["https://app.example.com"],
            form=ORIGINS,
        ),
    ] = ()
    watch: Annotated[
        bool,
        about(
            "Take over changes of this file, of files that ${file:} names and of certificates as "
            "they are made; SIGHUP does so in any case."
        ),
    ] = True
    drain_delay: Annotated[
        float,
        about(
            "How long new requests are taken after SIGTERM, while /health/ready says 503, for load "
            "balancers to notice; SIGINT does not wait.",
            "1s",
            form=PAUSE,
        ),
    ] = 1.0
    drain_timeout: Annotated[
        float,
        about(
            "How long running requests then have to end; streams get an error event after it.",
            "30s",
            form=DURATION,
        ),
    ] = 30.0
    drift_every: Annotated[
        float,
        about(
            "How often models that embed are asked for five fixed texts, to see whether they make "
            "the vectors that they made first; 0 for never. See the models' option drift.",
            "6h",
            form=PAUSE,
        ),
    ] = 21600.0
    drift_delay: Annotated[
        float,
        about(
            "How long after its start, or a model's first use, it first does.", "30s", form=PAUSE
        ),
    ] = 30.0
    offline: Annotated[
        bool,
        about(
            "Answer from the cache only; nothing is asked upstream and no engine is started. "
            "What is only needed to ask upstreams, such as their keys, may then be missing."
        ),
    ] = False


class Cache(Struct, frozen=True, kw_only=True):
    """What is kept, so that one text has one vector, and one seed one chat, asked for once."""

    memory: Annotated[
        int,
        about(
            "Vectors and chat answers kept in each worker's memory; 0 turns this off.",
            "256MiB",
            form=SIZE,
        ),
    ] = 256 * 2**20
    store: Annotated[
        tuple[StoreAddress, ...],
        about(
            "Where they last: a SQLite file, a Redis or Valkey server or cluster, or a list of "
            "both, nearest first. The last one has the last word. Without any, memory only.",
            "sqlite:///var/lib/embedding-gateway/cache.db",
            "rediss://gateway:${env:REDIS_PASSWORD}@redis:6379/0",
            form=STORE,
        ),
    ] = ()
    secret: Annotated[
        Secret | None,
        about(
            "Keys the digests that all is stored under; at least 16 characters. All who "
            "share a store need the same. Without it, one is made and kept with the store.",
            "${env:CACHE_SECRET}",
            form=LONG_SECRET,
        ),
    ] = None
    ttl: Annotated[
        float | None,
        about(
            "How long all of it is kept, in memory too; without it, for ever.", "30d", form=DURATION
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
        Name, about("Keys of one tenant share what is cached; tenants never do.", "search")
    ] = "default"
    admin: Annotated[bool, about("May also see the console page and the metrics.")] = False
    requests_per_minute: Annotated[
        Limit | None,
        about(
            "Most requests in a minute: as many at once, then evenly as the minute passes.", 3000
        ),
    ] = None
    tokens_per_minute: Annotated[
        Limit | None,
        about(
            "Most tokens that upstreams are asked for in a minute. Cached ones are free.", 200000
        ),
    ] = None
    concurrent_requests: Annotated[
        Count | None, about("Most requests at the same time, in all workers together.", 20)
    ] = None
    usd_per_day: Annotated[
        float | None,
        about(
            "Most US dollars that upstreams are paid in a day of UTC; needs the price of each "
            "model that the key may use. What is cached is free.",
            5.0,
            form=BUDGET,
        ),
    ] = None
