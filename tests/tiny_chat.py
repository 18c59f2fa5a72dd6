"""Small random-weight chat models: GGUF files of some hundred kilobytes that llama.cpp really runs.

What they say means nothing, but it depends on prompt and seed as a real model's text does: mostly
letters and words, now and then a mark of a tool call, a byte alone or the end. Any text can be
tokenized, and any text can be generated: the vocabulary has every byte. The same arguments give the
same bytes.
"""

import string
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quantize

UNKNOWN, BOS, EOS = "<unk>", "<s>", "</s>"
ENDS = ("<|im_end|>", "<|eot_id|>")
TURNS = (
    *("<|im_start|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    "[/TOOL_RESULTS]",
)
CALLS = ("[TOOL_CALLS]", "<|python_tag|>")
TAGS = ("<tool_call>", "</tool_call>")
"""Plain pieces of the vocabulary, as in Qwen's: not control tokens."""
WORDS = ("the", "journey", "to", "Mars", "red", "dust", "sky", "and", "we", "went", "true", "null")
WIDE = ("é", "ß", "—", "日", "本", "🚀")

CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""

HERMES = """\
{%- if tools -%}
<|im_start|>system
{% if messages[0].role == "system" %}{{ messages[0].content }}

{% endif -%}
# Tools

You may call functions. Their signatures are between <tools></tools> tags:
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor -%}
</tools>

For each call answer with a JSON object between <tool_call></tool_call> tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif -%}
{%- for message in messages -%}
{%- if message.role == "tool" -%}
<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif not (tools and loop.first and message.role == "system") -%}
<|im_start|>{{ message.role }}
{{ message.content or "" }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor -%}
<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""

LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- set role = "ipython" if message.role == "tool" else message.role -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{% if tools and loop.first -%}
{"tools": {{ tools | tojson }}} Call one with {"name": function name, "parameters": object}.
{% endif -%}
{%- if message.tool_calls -%}
{%- set call = message.tool_calls[0].function -%}
<|python_tag|>{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}
{%- else -%}
{{ message.content | trim }}
{%- endif -%}
<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start_header_id|>assistant<|end_header_id|>

{% endif -%}"""

MISTRAL = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == "user" -%}
{%- if tools and loop.last -%}
[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]
{%- endif -%}
[INST] {{ message.content }}[/INST]
{%- elif message.role == "system" -%}
[INST] {{ message.content }}[/INST]
{%- elif message.role == "tool" -%}
[TOOL_RESULTS] {"content": {{ message.content | tojson }}}[/TOOL_RESULTS]
{%- elif message.tool_calls -%}
[TOOL_CALLS] [
{%- for call in message.tool_calls -%}
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
{%- if not loop.last %}, {% endif -%}
{%- endfor -%}
]</s>
{%- else -%}
{{ " " ~ message.content }}</s>
{%- endif -%}
{%- endfor -%}"""


def write_chat(
    path: Path,
    *,
    context: int = 512,
    seed: int = 1,
    template: str | None = CHATML,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    ends: float = 0.0,
    spread: float = 2.0,
    vocab: int = 0,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    add_bos: bool = False,
) -> Path:
    """Write a Llama model that chats; `template` None leaves the chat template out.

    `ends` is what is added to the end tokens' logits: at 0 an answer has some 50 tokens in the
    mean, at -20 it never ends by itself. `spread` is the logits' standard deviation. `vocab` fills
    up the vocabulary to that size; `kind` is the matrices' type.
    """
    pieces, kinds = _vocabulary(vocab)
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny-chat")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(2 * width)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_file_type(0)
    _tokenizer(writer, pieces, kinds, add_bos=add_bos)
    if template is not None:
        writer.add_chat_template(template)
    biases = np.array([_bias(piece, kind, ends) for piece, kind in zip(pieces, kinds, strict=True)])
    _Weights(writer, seed, width, heads, kind).write(layers, biases, spread)
    return _finish(writer, path)


def write_recurrent(path: Path, *, context: int = 512, seed: int = 1) -> Path:
    """Write a Mamba model: it remembers a text in a state of fixed size, with no way back."""
    width, inner, states, rank, kernel = 64, 128, 16, 4, 4
    pieces, kinds = _vocabulary(0)
    writer = GGUFWriter(path, "mamba")
    writer.add_name("tiny-recurrent")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(0)
    writer.add_block_count(1)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(states)
    writer.add_ssm_time_step_rank(rank)
    writer.add_file_type(0)
    _tokenizer(writer, pieces, kinds, add_bos=False)
    writer.add_chat_template(CHATML)
    random = np.random.default_rng(seed)

    def tensor(name: str, *shape: int, mean: float = 0.0, deviation: float = 0.3) -> None:
        numbers = random.normal(mean, deviation, shape).astype(np.float32)
        writer.add_tensor(name, numbers)

    tensor("token_embd.weight", len(pieces), width)
    tensor("output.weight", len(pieces), width)
    tensor("output_norm.weight", width, mean=1.0)
    tensor("blk.0.attn_norm.weight", width, mean=1.0)
    tensor("blk.0.ssm_in.weight", 2 * inner, width)
    tensor("blk.0.ssm_conv1d.weight", inner, kernel)
    tensor("blk.0.ssm_conv1d.bias", inner)
    tensor("blk.0.ssm_x.weight", rank + 2 * states, inner)
    tensor("blk.0.ssm_dt.weight", inner, rank)
    tensor("blk.0.ssm_dt.bias", inner)
    tensor("blk.0.ssm_a", inner, states, mean=-1.0, deviation=0.1)
    tensor("blk.0.ssm_d", inner)
    tensor("blk.0.ssm_out.weight", width, inner)
    return _finish(writer, path)


def _finish(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary(size: int) -> tuple[list[str], list[TokenType]]:
    specials = [BOS, EOS, *ENDS, *TURNS, *CALLS]
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    printable = [chr(code) for code in range(0x21, 0x7F)] + ["\n", "\u2581"]
    normal = [*printable, *WORDS, *(f"\u2581{word}" for word in WORDS), *WIDE]
    pieces = [UNKNOWN, *specials, *every_byte, *TAGS, *normal]
    pieces += [f"\u2581filler{n}" for n in range(size - len(pieces))]
    kinds = [TokenType.UNKNOWN] + [TokenType.CONTROL] * len(specials)
    kinds += [TokenType.BYTE] * len(every_byte) + [TokenType.USER_DEFINED] * len(TAGS)
    kinds += [TokenType.NORMAL] * (len(pieces) - len(kinds))
    return pieces, kinds


def _tokenizer(
    writer: GGUFWriter, pieces: list[str], kinds: list[TokenType], *, add_bos: bool
) -> None:
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(n) for n in range(len(pieces))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(pieces.index(UNKNOWN))
    writer.add_bos_token_id(pieces.index(BOS))
    writer.add_eos_token_id(pieces.index(EOS))
    writer.add_eot_token_id(pieces.index(ENDS[0]))
    writer.add_add_bos_token(add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _bias(piece: str, kind: TokenType, ends: float) -> float:
    """Return what is added to a token's logit, so that texts look like texts."""
    if piece in (EOS, *ENDS):
        return 1.5 + ends
    if kind is TokenType.BYTE:
        return -4.0
    if piece in CALLS or piece in TAGS:
        return -2.0
    if kind is not TokenType.NORMAL:
        return -30.0
    likely = piece in string.ascii_lowercase or piece.strip("\u2581") in WORDS or piece == "\u2581"
    return 1.0 if likely else 0.0


class _Weights:
    """Random weights, but for the first component of the state, which is the same for any token.

    No layer writes to it; the rows of the output matrix have a token's bias there.
    """

    _CONSTANT = 3.0

    def __init__(
        self, writer: GGUFWriter, seed: int, width: int, heads: int, kind: GGMLQuantizationType
    ) -> None:
        self._writer, self._width, self._heads, self._kind = writer, width, heads, kind
        self._random = np.random.default_rng(seed)

    def write(self, layers: int, biases: np.ndarray, spread: float) -> None:
        width, narrow = self._width, self._width // 2
        embedding = self._normal(len(biases), width, 1.0)
        embedding[:, 0] = self._CONSTANT
        self._matrix("token_embd.weight", embedding)
        for layer in range(layers):
            self._norm(f"blk.{layer}.attn_norm")
            self._linear(f"blk.{layer}.attn_q", width, width, gain=2.0)
            self._linear(f"blk.{layer}.attn_k", narrow, width, gain=2.0)
            self._linear(f"blk.{layer}.attn_v", narrow, width)
            self._linear(f"blk.{layer}.attn_output", width, width, gain=2.0, constant=True)
            self._norm(f"blk.{layer}.ffn_norm")
            self._linear(f"blk.{layer}.ffn_gate", 2 * width, width)
            self._linear(f"blk.{layer}.ffn_up", 2 * width, width)
            self._linear(f"blk.{layer}.ffn_down", width, 2 * width, gain=2.0, constant=True)
        self._norm("output_norm")
        # The last norm brings the state to a length of sqrt(width).
        output = self._normal(len(biases), width, spread / np.sqrt(width))
        size = np.sqrt(1.0 + self._CONSTANT**2 / width + 2.0 * layers)
        output[:, 0] = biases * size / self._CONSTANT
        self._matrix("output.weight", output)

    def _linear(
        self, name: str, rows: int, columns: int, *, gain: float = 1.0, constant: bool = False
    ) -> None:
        weights = self._normal(rows, columns, gain / np.sqrt(columns))
        if constant:
            weights[0] = 0.0
        self._matrix(f"{name}.weight", weights)

    def _normal(self, rows: int, columns: int, deviation: float) -> np.ndarray:
        return self._random.normal(0, deviation, (rows, columns)).astype(np.float32)

    def _matrix(self, name: str, weights: np.ndarray) -> None:
        self._writer.add_tensor(name, quantize(weights, self._kind), raw_dtype=self._kind)

    def _norm(self, name: str) -> None:
        self._writer.add_tensor(f"{name}.weight", np.ones(self._width, dtype=np.float32))
