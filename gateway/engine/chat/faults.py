"""What can go wrong while an answer is made.

    StoppedError          nobody wants the answer any more
    GrammarError          the grammar cannot be used; whoever asked for it says in which field
    GatewayError (see gateway.errors)
    └── DecodeFailedError 500  llama.cpp gave up, or computed numbers that are none

Messages hold no texts.
"""

from gateway.errors import GatewayError


class StoppedError(Exception):
    """The work was called off; see `Cancel`."""


class GrammarError(Exception):
    """The grammar is one that llama.cpp does not take, or that leads nowhere."""


class DecodeFailedError(GatewayError):
    """llama.cpp could not go on with this prompt."""

    default_code = "decode_failed"

    def __init__(self, what: str) -> None:
        super().__init__(f"llama.cpp could not go on with these messages: {what}.")
