"""Tiny random stand-ins for scoring and captions: Qwen2.5-VL, CLIP with its image processor, LAION's head, RAFT.

Real classes, real processors and the real file layout, written to a folder; the same loading code reads them. Their
weights are random: what they make shows that the code runs, and is never a quality figure. Each writer has the
signature of the makers in tiny.py: (folder, seed) -> folder, and does nothing where the folder exists.
"""

from pathlib import Path
from typing import Any

from ptta_core.models import tiny

QWEN_SPECIALS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
]  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLIP_WIDTH = 32  # of the projected embedding; 768 in ViT-L/14
CLIP_SIDE_PX = 56
HEAD_WIDTHS = (64, 16, 8, 4, 1)  # 1024, 128, 64, 16, 1 in the published head


def vlm(folder: Path, seed: int) -> Path:
    """A tiny Qwen2.5-VL for image-text-to-text: model, processor and a byte-level tokenizer."""
    return tiny._once(folder, lambda new: _write_vlm(new, seed))


def clip(folder: Path, seed: int) -> Path:
    """A tiny CLIPModel with its image processor, for pictures of 56 px."""
    return tiny._once(folder, lambda new: _write_clip(new, seed))


def laion_head(folder: Path, seed: int) -> Path:
    """LAION's aesthetic head for the tiny CLIP's width, as model.safetensors."""
    return tiny._once(folder, lambda new: _write_head(new, seed))


def raft(folder: Path, seed: int) -> Path:
    """torchvision's raft_large with random weights (21 MB: its sizes are fixed), as model.safetensors."""
    return tiny._once(folder, lambda new: _write_raft(new, seed))


def _write_vlm(folder: Path, seed: int) -> None:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    processor = _qwen_processor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_qwen_config(processor.tokenizer)).eval()
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _qwen_processor() -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    sizes: dict[str, Any] = {
        "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
        "size": {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28},
    }  # fmt: skip
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes), tokenizer=_qwen_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**sizes), chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def _qwen_tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    alphabet, words = _byte_words()
    vocab, pairs = tiny.byte_pairs(words, alphabet, QWEN_SPECIALS)
    merges: Any = pairs  # the class takes pairs, whatever its annotation says
    return Qwen2Tokenizer(
        vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=QWEN_SPECIALS, padding_side="left",
    )  # fmt: skip


def _byte_words() -> tuple[list[str], list[tuple[str, ...]]]:
    """The byte-level alphabet, and the words of tiny.WORDS with the mark of a leading blank."""
    from tokenizers import pre_tokenizers

    words = [tuple(f"Ġ{word}") for word in tiny.WORDS.replace(",", " ").split()]
    return sorted(pre_tokenizers.ByteLevel.alphabet()), words


def _qwen_config(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig

    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "initializer_range": 0.5, "bos_token_id": token("<|endoftext|>"), "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 14, "fullatt_block_indexes": [1], "initializer_range": 0.5,
        },
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip


def _write_clip(folder: Path, seed: int) -> None:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "initializer_factor": 4.0}  # fmt: skip
    config = CLIPConfig(
        text_config={**size, "vocab_size": 64, "projection_dim": CLIP_WIDTH, "bos_token_id": 62, "eos_token_id": 63},
        vision_config={**size, "image_size": CLIP_SIDE_PX, "patch_size": 14, "projection_dim": CLIP_WIDTH},
        projection_dim=CLIP_WIDTH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    side = {"height": CLIP_SIDE_PX, "width": CLIP_SIDE_PX}
    CLIPImageProcessor(size={"shortest_edge": CLIP_SIDE_PX}, crop_size=side).save_pretrained(folder)


def _write_head(folder: Path, seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    tensors, width = {}, CLIP_WIDTH
    for layer, wider in zip((0, 2, 4, 6, 7), HEAD_WIDTHS):
        tensors[f"layers.{layer}.weight"] = torch.randn(wider, width, generator=random) * 2 / width**0.5
        tensors[f"layers.{layer}.bias"] = torch.randn(wider, generator=random)
        width = wider
    save_file(tensors, folder / "model.safetensors")


def _write_raft(folder: Path, seed: int) -> None:
    import torch
    from safetensors.torch import save_file
    from torchvision.models.optical_flow import raft_large

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(raft_large(weights=None, progress=False).state_dict(), folder / "model.safetensors")
