"""The peer: llama.cpp's own server, in a process of its own. Prints its address, and ends when its input does.

python -m benchmarks.llama_server MODEL CONTEXT_TOKENS PARALLEL THREADS GPU_LAYERS
"""

from __future__ import annotations

import os
import sys


def main(model: str, context_tokens: str, parallel: str, threads: str, gpu_layers: str) -> None:
    """Serve until the starter closes our input."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = int(context_tokens)
    params.n_parallel = int(parallel)
    params.n_gpu_layers = int(gpu_layers)
    params.kv_unified = True  # as ours
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # its threads would keep the process


if __name__ == "__main__":
    main(*sys.argv[1:])
