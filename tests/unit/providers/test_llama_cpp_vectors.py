"""Models that make vectors and no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiqueue.config import ProviderConfig
from aiqueue.errors import InvalidRequest
from aiqueue.providers.llama_cpp import LlamaCppProvider
from tests.tools.make_tiny_bert import make_bert
from tests.unit.providers.conftest import chat, request


async def test_an_encoder_embeds_and_refuses_to_write(tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    make_bert(path)
    entry = ProviderConfig(kind="llama_cpp", model_path=path, context_tokens=512)
    provider = LlamaCppProvider("local", entry)
    await provider.health_check()
    answer = await provider.run(request("embedding", input=["The job", "The queue"]))
    one, two = (vector.embedding for vector in answer.response.data)
    assert len(one) == len(two) == 64
    assert one != two
    for job in (chat(), request("text_completion", prompt="The job")):
        with pytest.raises(InvalidRequest, match=r"the model bert\.gguf makes vectors only, no text"):
            await provider.run(job)
    await provider.close()
