"""OpenAI's wire format for embeddings and models: JSON in, checked; JSON out, put together.

Every refusal names the field, and the item where there is one. Null and absent are the same for
every optional field, as OpenAI's SDKs send either.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, cast

import msgspec
from msgspec import Meta

from gateway.embedded import Embedded
from gateway.errors import InvalidRequestError, TooManyTokensError
from gateway.limits import TOKENS_PER_REQUEST
from gateway.types import USUAL, CacheControl, EmbeddingRequest, Text, UpstreamInfo

MAX_NAME = 256
"""Characters of a model's name; a pattern of the config would cover any number."""

MAX_INPUTS = 2048
"""OpenAI's limit for the inputs of one request."""


class _Body(msgspec.Struct):
    input: str | list[str | int | list[int]] | None = None
    model: str | None = None
    encoding_format: str | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_KNOWN = frozenset(_Body.__struct_fields__)
_KINDS = {str: "a string", int: "a number", list: "an array"}
_MAX_ID = 2**32 - 1
_SEPARATORS = tuple(
    b'},{"object":"embedding","index":%d,"embedding":' % index for index in range(1, MAX_INPUTS + 1)
)
"""What stands between the vectors of an answer, ready-made: formatting was a sixth of a hit."""
_NOTHING: Mapping[str, Any] = {}
_PATH = re.compile(r" - at `\$(?:\.(?P<field>\w+))?(?P<items>(?:\[\d+\])*)[^`]*`$")


def parse_embedding_request(body: bytes, control: CacheControl = USUAL) -> EmbeddingRequest:
    """Read the body of `POST /v1/embeddings`; raise InvalidRequestError for whatever is wrong."""
    try:
        asked = _decode(body)
        extra = _extra(body)
    except msgspec.ValidationError as error:
        refuse_shape(str(error))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise unreadable() from None
    return EmbeddingRequest(
        model=model_name(asked.model),
        inputs=_inputs(asked.input),
        base64=_is_base64(asked.encoding_format),
        dimensions=asked.dimensions,
        seed=asked.seed,
        user=asked.user,
        cache=control,
        extra=extra,
    )


def _extra(body: bytes) -> Mapping[str, Any]:
    """Return the fields that are neither OpenAI's nor ours, which the config decides about."""
    fields = _decode_fields(body)
    if fields.keys() <= _KNOWN:
        return _NOTHING
    unknown = {name: msgspec.json.decode(fields[name]) for name in fields.keys() - _KNOWN}
    return {name: value for name, value in unknown.items() if value is not None}


def _is_base64(encoding_format: str | None) -> bool:
    if encoding_format in (None, "float"):
        return False
    if encoding_format == "base64":
        return True
    raise InvalidRequestError(
        "'encoding_format' must be 'float' or 'base64'.", param="encoding_format"
    )


def _inputs(asked: str | list[str | int | list[int]] | None) -> Sequence[Text]:
    """Return the inputs as texts or id tuples; the four forms of the API become one list."""
    if asked is None:
        raise InvalidRequestError("you must provide an input parameter", param="input")
    if isinstance(asked, str):
        return (asked,)
    if not asked:
        raise InvalidRequestError("'input' must not be an empty array.", param="input")
    kinds = set(map(type, asked))
    if len(kinds) > 1:
        first = type(asked[0])
        index = next(i for i, item in enumerate(asked) if type(item) is not first)
        raise InvalidRequestError(
            f"'input[{index}]' is {_KINDS[type(asked[index])]} where 'input[0]' is "
            f"{_KINDS[first]}; all items must be of one kind.",
            param="input",
        )
    if int in kinds:
        texts = [_ids(cast("list[int]", asked), "'input'")]
    elif len(asked) > MAX_INPUTS:
        raise InvalidRequestError(
            f"'input' has {len(asked)} items; at most {MAX_INPUTS} fit in one request.",
            param="input",
        )
    elif str in kinds:
        return cast("list[str]", asked)
    else:
        texts = [
            _ids(ids, f"'input[{index}]'")
            for index, ids in enumerate(cast("list[list[int]]", asked))
        ]
    total = sum(map(len, texts))
    if total > TOKENS_PER_REQUEST:
        raise TooManyTokensError(total, TOKENS_PER_REQUEST)
    return texts


def _ids(ids: Sequence[int], where: str) -> tuple[int, ...]:
    if not ids:
        raise InvalidRequestError(
            f"{where} must not be an empty array of token ids.", param="input"
        )
    if min(ids) < 0 or max(ids) > _MAX_ID:
        wrong = next(id_ for id_ in ids if not 0 <= id_ <= _MAX_ID)
        raise InvalidRequestError(f"{where} holds {wrong}, which is no token id.", param="input")
    return tuple(ids)


def model_name(asked: str | None) -> str:
    """Return the model that was asked for; raise InvalidRequestError for what can be no name."""
    if not asked:
        raise InvalidRequestError("you must provide a model parameter", param="model")
    if len(asked) > MAX_NAME:
        raise InvalidRequestError(
            f"'model' has {len(asked)} characters; at most {MAX_NAME} make a name.",
            param="model",
        )
    return asked


def unreadable() -> InvalidRequestError:
    """Return the error for a body that is no JSON."""
    return InvalidRequestError(
        "We could not parse the JSON body of your request: it must be one JSON object in UTF-8."
    )


def refuse_shape(message: str) -> NoReturn:
    """Raise the decoder's message as one that names the field and the item."""
    path = _PATH.search(message)
    reason = message[: path.start()] if path else message
    field = path["field"] if path else None
    if field is None:
        raise InvalidRequestError(
            f"The body of your request is not valid: it must be a JSON object. {reason}."
        )
    items = path["items"] if path else ""
    raise InvalidRequestError(f"'{field}{items}' is not valid. {reason}.", param=field)


def embedding_response(embedded: Embedded) -> list[bytes]:
    """Return what the answer is put together from: every vector is a fragment made before."""
    pieces = [b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":']
    for separator, fragment in zip(_SEPARATORS, embedded.fragments, strict=False):
        pieces.append(fragment)
        pieces.append(separator)
    pieces.pop()
    pieces.append(
        b'}],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
        % (_encode(embedded.model), embedded.tokens, embedded.tokens)
    )
    return pieces


class Model(msgspec.Struct, omit_defaults=False):
    """One item of `GET /v1/models`: OpenAI's four fields, and what helps to choose."""

    id: str
    owned_by: str
    created: int = 0
    object: str = "model"
    task: str | None = None
    upstream: str | None = None
    dimensions: int | None = None
    context_length: int | None = None
    pooling: str | None = None
    aliases: Sequence[str] = ()
    state: str | None = None
    upstreams: Sequence[UpstreamInfo] = ()


def model_response(model: Model) -> bytes:
    """Return the JSON of `GET /v1/models/{id}`."""
    return _encode(model)


def models_response(models: Sequence[Model]) -> bytes:
    """Return the JSON of `GET /v1/models`."""
    return _encode({"object": "list", "data": models})
