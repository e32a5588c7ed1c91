"""From the turns of a conversation to the text that a model was trained on."""

from __future__ import annotations

from typing import Any

from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from aiqueue.llama.native_model import NativeModel

# Of a file that brings none: the format that most models without one were tuned on.
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ChatTemplate:
    """The model's own template, in a sandbox: it comes out of a file that anyone may have made."""

    def __init__(self, model: NativeModel) -> None:
        self._model = model
        self._has_own = model.chat_template is not None
        self._formatter = Jinja2ChatFormatter(
            template=model.chat_template or _CHATML, eos_token=model.end_marker, bos_token=model.begin_marker
        )

    def tokens(self, messages: list[dict[str, Any]]) -> tuple[int, ...]:
        """Return the prompt. Raises ValueError or jinja2.TemplateError for turns that the template refuses."""
        text = self._formatter(messages=messages).prompt  # type: ignore[arg-type]  # our dicts are such messages
        begins = bool(self._model.begin_marker) and text.startswith(self._model.begin_marker)
        return self._model.tokenize(text, begin=not begins, markers=True)

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer: of a borrowed template, whose markers are no tokens of the model."""
        return () if self._has_own else ("<|im_end|>",)

    def system_prefix(self, system_prompt: str) -> tuple[int, ...]:
        """Return the tokens with which every conversation under ``system_prompt`` begins."""
        one, other = (
            self.tokens([{"role": "system", "content": system_prompt}, {"role": "user", "content": content}])
            for content in ("a", "1")
        )
        same = next(
            (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        return one[:same]
