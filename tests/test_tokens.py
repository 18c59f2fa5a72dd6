"""The offline cl100k_base table against tiktoken itself, on known ids and on thousands of texts."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tokens import RANKS, SPECIAL_TOKENS, TABLE, Cl100k, tokenizer_available

# What tiktoken_ext/openai_public.py expects of cl100k_base.tiktoken, and the name under which
# tiktoken looks for it in its cache: the SHA-1 of the address it would download it from.
PUBLISHED_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
CACHE_NAME = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"

# From OpenAI's cookbook, "How to count tokens with tiktoken".
KNOWN = {
    "hello world": [15339, 1917],
    "tiktoken is great!": [83, 1609, 5963, 374, 2294, 0],
    "antidisestablishmentarianism": [519, 85342, 34500, 479, 8997, 2191],
    "2 + 2 = 4": [17, 489, 220, 17, 284, 220, 19],
    "お誕生日おめでとう": [33334, 45918, 243, 21990, 9080, 33334, 62004, 16556, 78699],
}

TEXTS = st.one_of(
    st.text(max_size=200),
    st.text(alphabet=st.sampled_from("aZé ß09'\n\r\t .,<|>_#字한🙂\u0301\u00a0"), max_size=200),
)


def published_file(vocabulary: Cl100k) -> bytes:
    """Write the vocabulary as OpenAI publishes it: base64, a space, the rank, a newline."""
    return b"".join(
        base64.b64encode(token) + b" %d\n" % rank
        for token, rank in vocabulary.mergeable_ranks.items()
    )


@pytest.fixture(scope="module")
def vocabulary() -> Cl100k:
    return Cl100k()


@pytest.fixture(scope="module")
def reference(vocabulary: Cl100k, tmp_path_factory: pytest.TempPathFactory) -> tiktoken.Encoding:
    """Return tiktoken's own encoding, made offline: it checks the file's SHA-256 before use."""
    cache = tmp_path_factory.mktemp("tiktoken")
    (cache / CACHE_NAME).write_bytes(published_file(vocabulary))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        return tiktoken.get_encoding("cl100k_base")


def test_the_table_holds_exactly_what_openai_published(vocabulary: Cl100k) -> None:
    """Written out in the published form, the table has the digest that tiktoken expects."""
    assert hashlib.sha256(published_file(vocabulary)).hexdigest() == PUBLISHED_SHA256


def test_the_table_file_has_the_recorded_digest() -> None:
    """The file in the package is the one that SHA256SUMS names."""
    recorded = (TABLE.parent / "SHA256SUMS").read_text()
    assert recorded == f"{hashlib.sha256(TABLE.read_bytes()).hexdigest()}  {TABLE.name}\n"


@pytest.mark.parametrize(("text", "ids"), KNOWN.items())
def test_known_ids_decode_to_their_text(vocabulary: Cl100k, text: str, ids: list[int]) -> None:
    """Ids that OpenAI documents come back as the documented text, and count as many."""
    assert vocabulary.decode(ids) == text.encode()
    assert vocabulary.count(text) == len(ids)


def test_no_ids_are_no_bytes(vocabulary: Cl100k) -> None:
    """An empty id list decodes to nothing."""
    assert vocabulary.decode([]) == b""


def test_every_id_decodes_as_tiktoken_decodes_it(
    vocabulary: Cl100k, reference: tiktoken.Encoding
) -> None:
    """All 100,256 ranks and all five special ids give tiktoken's bytes."""
    ids = [*range(RANKS), *SPECIAL_TOKENS.values()]
    ours = [vocabulary.decode([token]) for token in ids]
    assert ours == [reference.decode_single_token_bytes(token) for token in ids]


@settings(max_examples=2000, deadline=None)
@given(text=TEXTS)
def test_what_tiktoken_encodes_we_decode_and_count(
    vocabulary: Cl100k, reference: tiktoken.Encoding, text: str
) -> None:
    """A text survives tiktoken's encode and our decode, and our count is tiktoken's."""
    ids = reference.encode_ordinary(text)
    assert vocabulary.decode(ids) == text.encode()
    assert vocabulary.count(text) == len(ids)


@settings(max_examples=500, deadline=None)
@given(ids=st.lists(st.integers(min_value=0, max_value=RANKS - 1), max_size=50))
def test_any_ids_decode_as_tiktoken_decodes_them(
    vocabulary: Cl100k, reference: tiktoken.Encoding, ids: list[int]
) -> None:
    """Sequences that no encoder would make decode to the same bytes too."""
    assert vocabulary.decode(ids) == reference.decode_bytes(ids)


def test_special_ids_decode_to_their_literal_text(vocabulary: Cl100k) -> None:
    """Special tokens are written out, as tiktoken does."""
    ids = [100257, 100258, 100259, 100260, 100276]
    expected = b"<|endoftext|><|fim_prefix|><|fim_middle|><|fim_suffix|><|endofprompt|>"
    assert vocabulary.decode(ids) == expected


def test_a_special_name_in_a_text_counts_as_plain_text(
    vocabulary: Cl100k, reference: tiktoken.Encoding
) -> None:
    """`<|endoftext|>` typed by a user is seven ordinary tokens, not one special one."""
    assert vocabulary.count("<|endoftext|>") == len(reference.encode_ordinary("<|endoftext|>"))
    assert vocabulary.count("<|endoftext|>") == 7


@pytest.mark.parametrize(
    "bad", [-1, -100256, 100256, *range(100261, 100276), 100277, 2**31, 2**63, 10**30]
)
def test_an_id_outside_the_vocabulary_is_named(vocabulary: Cl100k, bad: int) -> None:
    """Gaps, negative and huge ids are refused, and the message says which id it was."""
    with pytest.raises(ValueError, match=rf"^{bad} is not a token id of cl100k_base$"):
        vocabulary.decode([15339, bad, 1917])


def test_part_of_a_character_stays_bytes(vocabulary: Cl100k) -> None:
    """A cut sequence gives the bytes it has; whether they are valid text is the caller's matter."""
    whole = KNOWN["お誕生日おめでとう"]
    cut = vocabulary.decode(whole[:2])
    with pytest.raises(UnicodeDecodeError):
        cut.decode()
    assert cut + vocabulary.decode(whole[2:]) == "お誕生日おめでとう".encode()


def test_the_table_is_read_once_and_only_when_needed(tmp_path: Path) -> None:
    """Making the object reads nothing; after the first use the file is not needed again."""
    table = tmp_path / "table.xz"
    vocabulary = Cl100k(table)
    with pytest.raises(FileNotFoundError):
        vocabulary.decode([0])
    shutil.copy(TABLE, table)
    assert vocabulary.decode([0]) == b"!"
    table.unlink()
    assert vocabulary.decode([1]) == b'"'


def test_decoding_needs_no_tiktoken_and_counting_says_so() -> None:
    """With the standard library alone, ids decode and `count` raises ImportError."""
    program = """
from gateway.tokens import Cl100k, tokenizer_available
vocabulary = Cl100k()
print(tokenizer_available(), vocabulary.decode([15339, 1917]).decode())
try:
    vocabulary.count("hello world")
except ImportError as error:
    print(error.name)
"""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],  # -S: no site-packages
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False hello world\ntiktoken\n"
    assert tokenizer_available()
