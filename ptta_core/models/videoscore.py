"""VideoScore's network and its inputs: Idefics2 with one linear head, and the published regression prompt.

Written from the published description and state-dict names (TIGER-AI-Lab/VideoScore, arXiv 2406.15252): the head
reads the last token's hidden state and gives five numbers. `judge.VideoScore` is what the rest of the project uses.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, Idefics2Config, Idefics2Model, Idefics2PreTrainedModel, Idefics2Processor
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

PROMPT_FILE = "regression_query_prompt.txt"
PLACEHOLDER = "{text_prompt}"
SCORES = 5
_IN_MODEL_CARD = re.compile(r'^REGRESSION_QUERY_PROMPT\s*=\s*"""(.*?)"""', re.DOTALL | re.MULTILINE)


class JudgeUnusable(ValueError):
    """The judge's weights or prompt are not what was published; no figure may carry its name."""

    kind = "judge"


class Idefics2Judge(Idefics2PreTrainedModel):
    """Idefics2 without its language head: `score` maps the last token's state [B, D] to [B, 5], unbounded."""

    def __init__(self, config: Any) -> None:  # an Idefics2Config, whose parts are typed as dict, config or None
        super().__init__(config)
        self.model = Idefics2Model(config)
        self.score = torch.nn.Linear(config.text_config.hidden_size, SCORES)
        self.post_init()

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Scores [B, 5]. Exact for one unpadded video at a time: the last token must be a real one."""
        return self.score(self.model(**inputs, use_cache=False).last_hidden_state[:, -1])


def judge_config(config: Any) -> Any:
    """The Idefics2Config with the perceiver's width and norm epsilon taken from the text model, in place.

    The weights were trained so; current transformers would use an epsilon of 1e-6 instead of the text model's 1e-5.
    """
    config.perceiver_config.hidden_size = config.text_config.hidden_size
    config.perceiver_config.rms_norm_eps = config.text_config.rms_norm_eps
    return config


def load_judge(folder: Path, device: str, dtype: str) -> tuple[Idefics2Judge, Idefics2Processor]:
    """The judge and its processor from a folder of safetensors. Raises JudgeUnusable, or OSError without weights.

    A missing or misshapen tensor would be filled at random by the loader, so any is an error here.
    """
    config = judge_config(Idefics2Config.from_pretrained(folder))
    loaded: Any = Idefics2Judge.from_pretrained(
        folder, config=config, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
    )
    model, report = loaded
    if absent := sorted(str(key) for part in ("missing_keys", "mismatched_keys") for key in report[part]):
        raise JudgeUnusable(f"{folder} does not hold the judge's tensors: {', '.join(absent[:5])}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval().to(device), make_processor(tokenizer, config.perceiver_config.resampler_n_latents)


def make_processor(tokenizer: Any, image_seq_len: int) -> Idefics2Processor:
    """The published preprocessing: whole frames, shortest edge 378 and longest 980 px, bilinear, to [-1, 1].

    The PIL processor, because the torchvision one differs from the published one by up to 1/255.
    """
    images = Idefics2ImageProcessorPil(
        do_image_splitting=False, size={"shortest_edge": 378, "longest_edge": 980},
        resample=Image.Resampling.BILINEAR, image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    return Idefics2Processor(images, tokenizer, image_seq_len=image_seq_len)


def load_query_prompt(folder: Path, sha256: str) -> str:
    """The judge's question, from `regression_query_prompt.txt` beside the weights or else from their model card.

    The text is published with the weights and is not part of this project. Its SHA-256 must be `sha256`, or scores
    would not be comparable with published ones. Raises JudgeUnusable.
    """
    file, card = folder / PROMPT_FILE, folder / "README.md"
    if file.is_file():
        text = file.read_bytes().decode()
    elif card.is_file() and (found := _IN_MODEL_CARD.search(card.read_bytes().decode().replace("\r\n", "\n"))):
        text = found[1]
    else:
        raise JudgeUnusable(f"{folder} holds neither {PROMPT_FILE} nor a README.md with REGRESSION_QUERY_PROMPT")
    seen = hashlib.sha256(text.encode()).hexdigest()
    if seen != sha256:
        raise JudgeUnusable(f"the query prompt in {folder} has sha256 {seen}, expected {sha256}")
    if text.count(PLACEHOLDER) != 1:
        raise JudgeUnusable(f"the query prompt in {folder} must hold {PLACEHOLDER} exactly once")
    return text


def fill_query(template: str, prompt: str, frames: int, special_tokens: list[str]) -> str:
    """The model's text: the template with the prompt, then "<image> " once a frame.

    Special tokens in a user's prompt are broken up with a blank, so that it can neither add an image nor end the text.
    """
    for token in sorted({*special_tokens, "<image>"}, key=len, reverse=True):
        prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
    return template.replace(PLACEHOLDER, prompt) + "<image> " * frames


def sample_frames(total: int, most: int) -> np.ndarray:
    """Indices of the frames shown: all of them up to `most`, else `most` evenly spaced from the first.

    The published rule, np.arange(0, total, total / most); the cut guards against its rounding giving one too many.
    """
    if total <= most:
        return np.arange(total)
    return np.arange(0, total, total / most).astype(int)[:most]
