"""A tiny random judge of VideoScore's real classes, on disk in the real layout, for the same loading code.

Its scores are random: they show that the code runs, and are never a quality figure. Its question is ours, of the same
shape as the published one.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptta_core.models import tiny

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ptta_core.models.videoscore import Idefics2Judge

STAND_IN_PROMPT = """
Watch the frames of a made-up video, read the words that it was made from,
and rate it in five ways:
(1) visual quality: is the picture clear
(2) temporal consistency: do things stay themselves
(3) dynamic degree: how much changes
(4) text-to-video alignment: does it show the words
(5) factual consistency: could it happen

for each, write a number from 1.0 to 4.0; 1.0 is the worst
visual quality: 1.5
temporal consistency: 2.5
dynamic degree: 3.5
text-to-video alignment: 1.0
factual consistency: 4.0

For this video, the text prompt is "{text_prompt}",
its frames are:
"""
STAND_IN_SHA256 = hashlib.sha256(STAND_IN_PROMPT.encode()).hexdigest()
SPECIAL_TOKENS = ["<s>", "</s>", "<unk>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
IMAGE_TOKENS = 4  # a frame; 64 in the published judge


def write_tiny_judge(folder: Path, seed: int = 0) -> Path:
    """Config, tokenizer, random safetensors and the stand-in question in `folder`; nothing where it exists.

    About 57,000 parameters. The same seed and library versions give the same bytes.
    """
    return tiny._once(folder, lambda new: _write(new, seed))


def _write(folder: Path, seed: int) -> None:
    from ptta_core.models.videoscore import PROMPT_FILE, make_processor

    tokenizer = _tokenizer()
    model = _model(tokenizer, seed)
    model.save_pretrained(folder)
    make_processor(tokenizer, IMAGE_TOKENS).save_pretrained(folder)
    (folder / PROMPT_FILE).write_text(STAND_IN_PROMPT, encoding="utf-8", newline="\n")


def _tokenizer() -> "PreTrainedTokenizerFast":
    """One token a byte, and the special tokens of Idefics2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *letters])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>",
        additional_special_tokens=SPECIAL_TOKENS[3:],
    )  # fmt: skip


def _model(tokenizer: "PreTrainedTokenizerFast", seed: int) -> "Idefics2Judge":
    import torch
    from transformers import Idefics2Config

    from ptta_core.models.videoscore import Idefics2Judge, judge_config

    text = {
        "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5, "initializer_range": 0.2, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 70, "patch_size": 14, "initializer_range": 0.2,
    }  # fmt: skip
    perceiver = {
        "hidden_size": 32, "resampler_n_latents": IMAGE_TOKENS, "resampler_depth": 1, "resampler_n_heads": 2,
        "resampler_head_dim": 8, "num_key_value_heads": 1, "initializer_range": 0.2,
    }  # fmt: skip
    image_token: Any = tokenizer.convert_tokens_to_ids("<image>")
    config = Idefics2Config(
        text_config=text, vision_config=vision, perceiver_config=perceiver, image_token_id=image_token
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Idefics2Judge(judge_config(config))
        # the library starts the resampler's latents equal: random ones, so that every part of a frame counts
        torch.nn.init.normal_(model.model.connector.perceiver_resampler.latents)
        torch.nn.init.normal_(model.score.weight, std=0.2)
        torch.nn.init.constant_(model.score.bias, 2.5)
    return model
