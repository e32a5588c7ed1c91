"""Make a small llama-architecture GGUF file that llama.cpp loads, for tests.

Nothing is downloaded and no trained weights are used: every number in the file is derived from a seed and from a short
text. The same arguments (and the same numpy and gguf releases) give the same bytes.

    python -m tests.tools.make_tiny_gguf tiny.gguf                      # 3.4 MB, under a second
    python -m tests.tools.make_tiny_gguf big.gguf --preset 125m --type q4_0
    python -m tests.tools.make_tiny_gguf big.gguf --preset 350m --vocab-from other.gguf

Two kinds of weights:

bigram (default; needs embd >= vocab)
    A token's embedding is one-hot and the output matrix holds the log probabilities of the token pairs counted in the
    text, so the model speaks in words of that text and ends a turn by itself with <|im_end|>. The attention and
    feed-forward weights are random and small (--mix): they make the logits depend on the whole context. So a wrong
    key/value cache, a lost system prompt or two mixed-up sequences change the output, which is what a test of batching
    or of prefix caching must be able to see. --mix 0 turns this off: then it is an exact bigram model.
    For tests that compare a batched run with a run alone, token by token: --type f32, temperature 0, one thread and
    flash attention off (its tiled path for long prompts rounds differently from the path for single tokens).

random
    All weights random. Greedy output repeats one token, sampled output is noise, and neither ends by itself. For load
    and speed tests at any size: a forward pass costs what it costs in a trained model of that shape. Presets other than
    `tiny` use it.

The tokenizer is in tiny_tokenizer.py; --vocab-from copies that of another GGUF file instead (random weights only). The
chat template is ChatML, embedded as tokenizer.chat_template; the end-of-sequence token is <|im_end|>.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray

from tests.tools.tiny_tokenizer import (
    BYTE_CHAR,
    CHAT_TEMPLATE,
    CORPUS,
    ENDOFTEXT,
    IM_END,
    IM_START,
    SPECIALS,
    Pair,
    encode,
    train_bpe,
    vocabulary,
)

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model."""

    vocab: int
    embd: int
    layers: int
    heads: int
    kv_heads: int
    head: int  #: size of one head
    ff: int
    ctx: int
    weights: str  #: bigram | random
    tied: bool  #: the output matrix is the embedding matrix

    def check(self) -> None:
        """Exit with what is wrong with the sizes, if anything is."""
        if self.weights == "bigram" and self.vocab > self.embd:
            sys.exit("bigram weights need embd >= vocab")
        width = self.heads * self.head
        if self.heads % self.kv_heads or self.head % 2 or self.embd % 32 or self.ff % 32 or width % 32:
            sys.exit("heads must divide by kv-heads; embd, ff and heads*head by 32; head must be even")


# `tiny` has room for every word of the text as a token of its own. The random presets have the same tokenizer, padded,
# so that the size of the output matrix is like a trained model's.
PRESETS = {
    #              vocab  embd layers heads kv head   ff   ctx
    "tiny": Shape(704, 704, 2, 8, 4, 32, 256, 2048, "bigram", False),
    "15m": Shape(32000, 288, 6, 6, 6, 48, 768, 2048, "random", True),
    "125m": Shape(32000, 768, 12, 12, 4, 64, 2048, 8192, "random", True),
    "350m": Shape(32000, 1024, 24, 16, 4, 64, 2816, 8192, "random", True),
    "1b": Shape(32000, 2048, 16, 32, 8, 64, 8192, 8192, "random", True),
}

TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}


def make(
    path: str | Path,
    shape: Shape = PRESETS["tiny"],
    *,
    kind: str = "q8_0",
    seed: int = 1,
    mix: float = 0.25,
    vocab_from: str | None = None,
    name: str = "tiny-test",
) -> dict[str, Any]:
    """Write the file and return what is in it; ``kind`` is one of ``TYPES``, ``mix`` how much the context counts."""
    shape.check()
    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_description("made by make_tiny_gguf.py: no trained weights")
    pairs = None
    if vocab_from:
        shape = replace(shape, vocab=_copy_tokenizer(writer, vocab_from))
        if shape.weights == "bigram":
            sys.exit("bigram weights need this tool's own tokenizer")
    else:
        merges, ids = _write_own_tokenizer(writer, shape.vocab)
        if shape.weights == "bigram":
            pairs = _bigram_logits(shape.vocab, merges, ids)
    _write_shape(writer, shape, TYPES[kind][1])
    parameters = _write_weights(writer, _tensors(shape, seed, mix, pairs), TYPES[kind][0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = Path(path).read_bytes()
    return {
        "path": str(path),
        "parameters": parameters,
        "vocab": shape.vocab,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _write_own_tokenizer(writer: GGUFWriter, size: int) -> tuple[list[Pair], dict[str, int]]:
    """Train the tokenizer, write it, and return what ``_bigram_logits`` needs."""
    merges = train_bpe(CORPUS, min(size - len(vocabulary([])), 4000))
    tokens = vocabulary(merges)
    padding = size - len(tokens)
    kinds = [TokenType.CONTROL] * len(SPECIALS) + [TokenType.NORMAL] * (len(tokens) - len(SPECIALS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + [f"[PAD{at}]" for at in range(padding)])
    writer.add_token_types(kinds + [TokenType.UNUSED] * padding)
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(ENDOFTEXT)
    writer.add_eos_token_id(IM_END)
    writer.add_pad_token_id(ENDOFTEXT)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    return merges, {token: at for at, token in enumerate(tokens)}


def _copy_tokenizer(writer: GGUFWriter, path: str) -> int:
    """Copy every tokenizer.* field of another GGUF; return the vocabulary's size."""
    size = 0
    for name, field in GGUFReader(path).fields.items():
        if not name.startswith("tokenizer."):
            continue
        value = field.contents()
        if name == "tokenizer.ggml.tokens":
            size = len(value)
        writer.add_key_value(name, value, field.types[0], sub_type=field.types[-1] if len(field.types) > 1 else None)
    if not size:
        sys.exit(f"{path}: no tokenizer.ggml.tokens in it")
    return size


def _bigram_logits(size: int, merges: list[Pair], ids: dict[str, int]) -> Matrix:
    """Return [token, next token] -> log probability, smoothed, from the text's lines."""
    counts = np.full((size, size), 1e-4)
    used = len(ids)
    counts[:, used:] = 1e-9  # padding tokens are never said
    counts[:, [ENDOFTEXT, IM_START]] = 1e-9  # nor are these two
    newline = ids[BYTE_CHAR[ord("\n")]]
    for line in CORPUS.splitlines():
        for a, b in pairwise([newline, *encode(line, merges, ids), IM_END]):
            counts[a, b] += 0.3 if b == IM_END else 1  # else the answers are very short
    counts[newline, IM_END] = 1e-9  # no empty answers
    logits = np.log(counts)
    # Centred on the many pairs that never occur: softmax does not care, and what the random weights add then moves the
    # words that can follow, not the whole vocabulary.
    centred: Matrix = (logits - np.median(logits[:, :used], axis=1, keepdims=True)).astype(np.float32)
    return centred


def _tensors(shape: Shape, seed: int, mix: float, pairs: Matrix | None) -> Iterator[tuple[str, Matrix]]:
    """Yield the name and the [rows, columns] of each matrix; the order decides which random numbers it gets."""
    rng = np.random.default_rng(seed)

    def normal(rows: int, columns: int, gain: float = 1.0) -> Matrix:
        return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(gain / np.sqrt(columns))

    output: Matrix | None = None
    if pairs is not None:
        # One-hot rows of length sqrt(embd): the final RMS norm leaves them as they are, so output @ embedding gives the
        # log probabilities.
        root = np.float32(np.sqrt(shape.embd))
        embedding = np.eye(shape.vocab, shape.embd, dtype=np.float32) * root
        output = np.zeros((shape.vocab, shape.embd), dtype=np.float32)
        output[:, : shape.vocab] = pairs.T / root
        branch = mix
    else:
        embedding = normal(shape.vocab, shape.embd, np.sqrt(shape.embd))
        if not shape.tied:
            output = normal(shape.vocab, shape.embd, 3.0)
        branch = 1.0 / np.sqrt(2 * shape.layers)  # keeps the residual's size level
    yield "token_embd.weight", embedding
    if output is not None:
        yield "output.weight", output
    yield "output_norm.weight", np.ones(shape.embd, dtype=np.float32)
    q, kv = shape.heads * shape.head, shape.kv_heads * shape.head
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight", np.ones(shape.embd, dtype=np.float32)
        yield f"blk.{layer}.ffn_norm.weight", np.ones(shape.embd, dtype=np.float32)
        yield f"blk.{layer}.attn_q.weight", normal(q, shape.embd, 2.0)
        yield f"blk.{layer}.attn_k.weight", normal(kv, shape.embd, 2.0)
        yield f"blk.{layer}.attn_v.weight", normal(kv, shape.embd)
        yield f"blk.{layer}.attn_output.weight", normal(shape.embd, q, branch * 4)
        yield f"blk.{layer}.ffn_gate.weight", normal(shape.ff, shape.embd)
        yield f"blk.{layer}.ffn_up.weight", normal(shape.ff, shape.embd)
        yield f"blk.{layer}.ffn_down.weight", normal(shape.embd, shape.ff, branch)


def _write_shape(writer: GGUFWriter, shape: Shape, file_type: LlamaFileType) -> None:
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.ctx)
    writer.add_embedding_length(shape.embd)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)


def _write_weights(writer: GGUFWriter, tensors: Iterator[tuple[str, Matrix]], weight_type: GGMLQuantizationType) -> int:
    """Add the matrices in their type on disk; return how many parameters there are."""
    parameters = 0
    for name, matrix in tensors:
        parameters += matrix.size
        if matrix.ndim == 1 or weight_type == GGMLQuantizationType.F32:
            writer.add_tensor(name, matrix)  # norms stay f32
        elif weight_type == GGMLQuantizationType.F16:
            writer.add_tensor(name, matrix.astype(np.float16))
        else:
            # These two get 8 bits at least: llama.cpp's own quantiser gives them more than the rest, too.
            in_words = name in ("token_embd.weight", "output.weight")
            own_type = GGMLQuantizationType.Q8_0 if in_words else weight_type
            writer.add_tensor(name, quantize(matrix, own_type), raw_dtype=own_type)
    return parameters


def main() -> None:
    """Make the file that the command line asks for, and print what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--type", choices=TYPES, default="q8_0", dest="kind")
    parser.add_argument("--weights", choices=["bigram", "random"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mix", type=float, default=0.25, help="bigram: how much the context counts")
    parser.add_argument("--vocab-from", metavar="GGUF", help="copy this file's tokenizer")
    for size in ("vocab", "embd", "layers", "heads", "kv-heads", "head", "ff", "ctx"):
        parser.add_argument(f"--{size}", type=int, help="instead of the preset's")
    given = parser.parse_args()
    own = {field.name: getattr(given, field.name, None) for field in fields(Shape)}
    shape = replace(PRESETS[given.preset], **{name: value for name, value in own.items() if value is not None})
    made = make(
        given.out,
        shape,
        kind=given.kind,
        seed=given.seed,
        mix=given.mix,
        vocab_from=given.vocab_from,
        name=f"{given.preset}-test",
    )
    for name, value in made.items():
        print(f"{name:10} {value}")


if __name__ == "__main__":
    main()
