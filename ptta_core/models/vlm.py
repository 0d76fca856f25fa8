"""Any open image-text-to-text model of transformers as a captioner: a batch of clips, their frames as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptta_core.config import CaptionConfig, ModelRef
from ptta_core.models import resolve
from ptta_core.models.captioner import CaptionItem, Malformed, Words, sample_frames
from ptta_core.models.dialogue import Answer, Chat, converse


class VideoLanguageModel:
    """The clip's frames as pictures, then the prompt, greedily."""

    def __init__(self, model: Any, processor: Any, config: CaptionConfig, device: str = "cpu") -> None:
        self.model = model.to(device).eval()
        self.processor = processor
        self.config = config
        self.device = device
        self.most: int | None = None  # chats that are known to fit into the device's memory at once
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.tokenizer.padding_side = "left"  # generation continues at the right end of every row of a batch
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def __call__(self, items: list[CaptionItem]) -> list[Words | Malformed]:
        """One caption a clip. Raises video's errors, and EmptyClip for a span without frames."""
        return converse(items, [sample_frames(item, self.config.frames) for item in items], self.config, self.answer)

    def answer(self, chats: list[Chat]) -> list[Answer]:
        """What the model says in each chat, in order; all have pictures (uint8 RGB [H,W,3] each), or none has.

        Where the device's memory does not hold the batch, it goes on with half as many, also from then on.
        Raises torch.cuda.OutOfMemoryError where a single chat is too large.
        """
        answers: list[Answer] = []
        while len(answers) < len(chats):
            batch = chats[len(answers) :][: self.most]
            said = self._generate(batch)
            if said is None:
                self.most = len(batch) // 2
            else:
                answers += said
        return answers

    def _generate(self, chats: list[Chat]) -> list[Answer] | None:
        """What the model says, or None where several chats did not fit into the device's memory."""
        import torch

        try:
            inputs = self._inputs(chats)
            with torch.inference_mode():
                tokens_NL = self.model.generate(**inputs, max_new_tokens=self.config.max_new_tokens, do_sample=False)
            new_NL = tokens_NL[:, inputs["input_ids"].shape[1] :]
            texts = self.processor.batch_decode(new_NL, skip_special_tokens=True)
            return [Answer(text.strip(), cut) for text, cut in zip(texts, self._cut(new_NL))]
        except torch.cuda.OutOfMemoryError:
            if len(chats) == 1:
                raise
        if torch.cuda.is_available():  # only here has the error let go of the batch's tensors
            torch.cuda.empty_cache()
        return None

    def _cut(self, new_NL: Any) -> list[bool]:
        """Whether each row was still going on when caption.max_new_tokens were spent."""
        ends = self.model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        full = new_NL.shape[1] >= self.config.max_new_tokens
        return [full and not any(token in ends for token in row) for row in new_NL.tolist()]

    def _inputs(self, chats: list[Chat]) -> Any:
        from PIL import Image

        images = [[Image.fromarray(frame) for frame in chat.pictures] for chat in chats]
        texts = [self._question(chat) for chat in chats]
        pictures = {"images": images} if any(images) else {}
        inputs = self.processor(text=texts, padding=True, return_tensors="pt", **pictures)
        return inputs.to(self.device, dtype=self.model.dtype)  # whole numbers keep their type

    def _question(self, chat: Chat) -> str:
        """The turns after the pictures, in the model's own chat format where it has one."""
        if getattr(self.processor, "chat_template", None):
            return self.processor.apply_chat_template(messages(chat), add_generation_prompt=True, tokenize=False)
        return getattr(self.processor, "image_token", "<image>") * len(chat.pictures) + "\n".join(chat.turns)


def messages(chat: Chat) -> list[dict[str, Any]]:
    """A chat as transformers' templates take it."""
    content: Sequence[Any] = [{"type": "image"}] * len(chat.pictures)
    found = []
    for place, text in enumerate(chat.turns):
        role = "assistant" if place % 2 else "user"
        found.append({"role": role, "content": [*(content if place == 0 else ()), {"type": "text", "text": text}]})
    return found


def load_vlm(
    config: CaptionConfig, ref: ModelRef, device: str = "cpu", models_folder: str | Path = ""
) -> VideoLanguageModel:
    """The model and its processor from a folder or the hub: safetensors only, none of its own code.

    bfloat16 on a GPU, float32 on the CPU. Raises OSError.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    source, revision = resolve(ref, models_folder)
    at: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(source, use_safetensors=True, dtype=dtype, **at)
    return VideoLanguageModel(model, AutoProcessor.from_pretrained(source, **at), config, device)


