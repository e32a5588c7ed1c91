"""A byte-level BPE tokenizer (the ``gpt2`` kind), trained on a short text, for models made for tests.

It takes any UTF-8 and gives it back unchanged.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

Pair = tuple[str, str]

# What the tokenizer and the bigram weights are made from; one line is one answer of the assistant. A changed word here
# changes every model that the tests make.
CORPUS = """\
Hello! I am a small model made for tests. I know a few words about queues and workers.
A queue keeps the jobs in order. A worker takes the next job, runs it, and reports the result.
The job is done when the worker has stored its answer. The client reads the answer from the stream.
If a worker stops, the queue gives its job to another worker. No job is lost and no job is run twice.
A batch is a group of requests that run in one step. More requests in a batch give more tokens per second.
The cache keeps the keys and values of the prompt. A shared prompt is read once and used many times.
Each token is sent to the client as soon as it is ready. The last one tells why the answer ended.
The price of a request is the number of tokens times the price of a token. A budget stops the job when it is spent.
The small grey cat sat on the warm stone wall and looked at the river. The water was clear and cold.
One, two, three, four, five, six, seven, eight, nine, ten. That is all I can count.
In the morning the sun came up over the hills, and the birds began to sing in the old trees.
A good test is small and fast. It fails when the code is wrong and passes when the code is right.
The answer is yes. The answer is no. The answer is forty two. I do not know the answer.
Please try again later. The rate limit was reached, so the worker waits for a moment and then tries once more.
When the limit is reached the request waits. When the time is over the request is cancelled.
Paris is the capital of France. Rome is the capital of Italy. Berlin is the capital of Germany.
{"name": "job", "status": "done", "tokens": 12, "cost": 0.5}
def add(a, b): return a + b
"""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ENDOFTEXT, IM_START, IM_END = range(3)


def _byte_to_char() -> dict[int, str]:
    """Return GPT-2's printable stand-in for each byte."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {byte: chr(byte) for byte in keep}, 0
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


BYTE_CHAR = _byte_to_char()
# GPT-2's splitting rule, close enough for this text (llama.cpp has the real one).
_SPLIT = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def train_bpe(text: str, merges_wanted: int) -> list[Pair]:
    """Return at most ``merges_wanted`` merges, the most frequent pair first; ties go to the alphabetically first."""
    words, merges = Counter(_words_of(text)), list[Pair]()
    while len(merges) < merges_wanted:
        pairs = Counter[Pair]()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = Counter[tuple[str, ...]]()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged
    return merges


def vocabulary(merges: list[Pair]) -> list[str]:
    """Return the tokens in the order of their ids: specials, bytes, then what the merges make."""
    # A dictionary, since two merges can spell the same token.
    return list(dict.fromkeys([*SPECIALS, *(BYTE_CHAR[byte] for byte in range(256)), *(a + b for a, b in merges)]))


def encode(text: str, merges: list[Pair], ids: dict[str, int]) -> list[int]:
    """Return the token ids of ``text``."""
    rank = {pair: at for at, pair in enumerate(merges)}
    out: list[int] = []
    for word in _words_of(text):
        while len(word) > 1:
            best = min(pairwise(word), key=lambda pair: rank.get(pair, len(rank)))
            if best not in rank:
                break
            word = _merge(word, best)
        out += [ids[piece] for piece in word]
    return out


def _words_of(text: str) -> list[tuple[str, ...]]:
    return [tuple(BYTE_CHAR[byte] for byte in word.encode()) for word in _SPLIT.findall(text)]


def _merge(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    out, at = list[str](), 0
    while at < len(word):
        if word[at : at + 2] == pair:
            out.append(pair[0] + pair[1])
            at += 2
        else:
            out.append(word[at])
            at += 1
    return tuple(out)
