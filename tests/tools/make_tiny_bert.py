"""A tiny encoder-only model (BERT) in a GGUF file, with random weights: it makes vectors and no text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType

from tests.tools.make_tiny_gguf import _write_own_tokenizer

_VOCAB, _WIDTH, _HIDDEN, _LAYERS, _HEADS, _CONTEXT = 704, 64, 128, 2, 4, 512


def make_bert(path: Path, *, seed: int = 1) -> None:
    """Write the model to ``path``: 4 heads, 2 layers, vectors of 64 numbers, the mean of a text's tokens."""
    writer = GGUFWriter(path, "bert")
    _write_own_tokenizer(writer, _VOCAB)
    writer.add_vocab_size(_VOCAB)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_block_count(_LAYERS)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)
    writer.add_pooling_type(PoolingType.MEAN)
    random = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int = _WIDTH) -> None:
        weights = random.normal(0.0, columns**-0.5, (rows, columns))
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))

    def layer(name: str, rows: int, columns: int = _WIDTH) -> None:
        matrix(name, rows, columns)
        writer.add_tensor(f"{name}.bias", np.zeros(rows, np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(_WIDTH, np.float32))

    matrix("token_embd", _VOCAB)
    matrix("position_embd", _CONTEXT)
    matrix("token_types", 2)
    norm("token_embd_norm")
    for number in range(_LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            layer(f"blk.{number}.{part}", _WIDTH)
        norm(f"blk.{number}.attn_output_norm")
        layer(f"blk.{number}.ffn_up", _HIDDEN)
        layer(f"blk.{number}.ffn_down", _WIDTH, _HIDDEN)
        norm(f"blk.{number}.layer_output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
