"""Tiny random stand-ins of the real model classes, on disk in the real layout, so the loading code has no test branch.

The weights are random: what these models make shows that the code runs, and is never a quality figure.
"""

import importlib
import itertools
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

TINY_VERSION = 1  # raise it whenever what is written changes: the folder's name and every identity carry it

NOTE = """Random weights, written by ptta_core/models/tiny.py (version {version}, seed {seed}).
The classes, the file layout and the shape rules are the real ones; the weights were never trained.
Nothing made with this model is a quality figure.
"""

WORDS = """
an animated cartoon scene shows a girl and a boy with a red ball on green grass under the blue sky while the camera
moves slowly left right up down, bright warm dark soft light, animation style, a man and a woman walk run jump talk,
a dog a cat a bird flies over the sea, a house a tree a car a road, quick motion, still picture, close view, wide view
"""
SPLIT = (  # how Llama 3 cuts text into words before byte-pair merging
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPECIALS = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|pad|>"]
CLIP_SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
TEXT_WIDTH, POOLED_WIDTH = 32, 16


def hunyuan(folder: Path, seed: int) -> Path:
    """A tiny random HunyuanVideo in diffusers' layout, loadable by `HunyuanVideoPipeline.from_pretrained`.

    Transformer: patch 2, 2 dual and 2 single blocks, 2 heads of 16, 16 latent channels, guidance embedding. VAE: /8 in
    space, /4 in time. The same seed and library versions give the same bytes. Does nothing where `folder` exists;
    two writers at once are harmless.
    """
    return _once(folder, lambda new: _write_hunyuan(new, seed))


def _elsewhere(module: str, name: str) -> Callable[[Path, int], Path]:
    """A maker of another module, imported when it is called: those modules import this one."""

    def make(folder: Path, seed: int) -> Path:
        return getattr(importlib.import_module(f"ptta_core.models.{module}"), name)(folder, seed)

    return make


# the KIND of a model id tiny:KIND, for every model that a recipe can name
MAKERS: dict[str, Callable[[Path, int], Path]] = {
    "hunyuan": hunyuan,  # base.model
    "raft": _elsewhere("tiny_vlm", "raft"),  # score.motion_model
    "clip": _elsewhere("tiny_vlm", "clip"),  # score.aesthetic_model
    "laion-head": _elsewhere("tiny_vlm", "laion_head"),  # score.aesthetic_head
    "vlm": _elsewhere("tiny_vlm", "vlm"),  # caption.model
    "videoscore": _elsewhere("tiny_judge", "write_tiny_judge"),  # evaluate.videoscore
    "transnet": _elsewhere("transnet", "write_tiny"),  # split.model
}


def _once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Fill a temporary folder beside `folder` and rename it there: seen whole or not at all."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(new)
        new.chmod(0o755)
        try:
            os.rename(new, folder)
        except OSError:
            if not folder.is_dir():  # anything but another writer being first
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _write_hunyuan(folder: Path, seed: int) -> None:
    import torch
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    from ptta_core.models.hunyuan import make_pipeline, quietly

    llama_tokenizer, clip_tokenizer = llama3_tokenizer(), clip_l_tokenizer()
    with torch.random.fork_rng(devices=[]):  # random numbers for the weights only, all drawn on the CPU
        torch.manual_seed(seed)
        pipeline = make_pipeline(
            transformer=_transformer(),
            vae=_vae(),
            text_encoder=_llama(llama_tokenizer),
            text_encoder_2=_clip_text(clip_tokenizer),
            tokenizer=llama_tokenizer,
            tokenizer_2=clip_tokenizer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        )
    with quietly():
        pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "NOTE.txt").write_text(NOTE.format(version=TINY_VERSION, seed=seed), encoding="utf-8")


def _transformer() -> Any:
    import torch
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel

    model = HunyuanVideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        num_single_layers=2, num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True,
        text_embed_dim=TEXT_WIDTH, pooled_projection_dim=POOLED_WIDTH, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    with torch.no_grad():
        model.proj_out.weight.mul_(1.5)  # a velocity of about unit size, as a trained model's
        for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
            for norm in (getattr(block, name, None) for name in ("norm1", "norm1_context", "norm")):
                if norm is not None:  # wider gates: the blocks, hence adapters inside them, reach the output
                    norm.linear.weight.mul_(2.0)
                    norm.linear.bias.mul_(2.0)
    return model


def _vae() -> Any:
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo

    channels = 16
    model = AutoencoderKLHunyuanVideo(
        in_channels=3, out_channels=3, latent_channels=channels, down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4, block_out_channels=(8, 8, 8, 8), layers_per_block=1,
        act_fn="silu", norm_num_groups=4, scaling_factor=0.476986, spatial_compression_ratio=8,
        temporal_compression_ratio=4, mid_block_add_attention=True,
    )  # fmt: skip
    with torch.no_grad():
        quant = model.quant_conv
        quant.weight[:channels] *= 12.0  # latents of about unit size after scaling, most of it signal ...
        quant.weight[channels:] = 0.0
        quant.bias[channels:] = -4.0  # ... and little posterior noise: standard deviation exp(-2)
        model.decoder.conv_out.conv.weight.mul_(2.0)  # contrast in the decoded picture
    return model


def _llama(tokenizer: "PreTrainedTokenizerFast") -> Any:
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(LlamaConfig(
        hidden_size=TEXT_WIDTH, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=512, initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )).eval()  # fmt: skip


def _clip_text(tokenizer: "CLIPTokenizer") -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(
        hidden_size=POOLED_WIDTH, intermediate_size=32, projection_dim=POOLED_WIDTH, num_hidden_layers=2,
        num_attention_heads=2, vocab_size=len(tokenizer), max_position_embeddings=77, initializer_factor=8.0,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )).eval()  # fmt: skip


def llama3_tokenizer() -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer built like Llama 3's, right-padded, with a few hundred words instead of 128,000.

    Every word of HunyuanVideo's video template is in it, so the template's beginning has the real 95 tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from ptta_core.models.hunyuan import TEMPLATE

    template = re.sub(r"<\|\w+\|>", "\n", TEMPLATE["template"])
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    texts = [*template.split("\n"), "\n\n", WORDS.replace("\n", " ")]
    words = [tuple(word) for text in texts for word, _ in split.pre_tokenize_str(text)]
    vocab, merges = byte_pairs(words, sorted(pre_tokenizers.ByteLevel.alphabet()), LLAMA_SPECIALS)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.ByteLevel()
    begin = LLAMA_SPECIALS[0]
    tokenizer.add_special_tokens(LLAMA_SPECIALS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, vocab[begin])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token="<|eot_id|>", pad_token="<|pad|>", padding_side="right",
        model_max_length=512,
    )  # fmt: skip


def clip_l_tokenizer() -> "CLIPTokenizer":
    """CLIP's own tokenizer class over bytes and a few words, at most 77 tokens; the end token has the highest id."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    split = [re.findall(r"\w+|[^\w\s]+", WORDS)]
    words = [(*word[:-1], f"{word[-1]}</w>") for line in split for word in line]
    vocab, merges = byte_pairs(words, [*alphabet, *(f"{byte}</w>" for byte in alphabet)], CLIP_SPECIALS)
    build: Any = CLIPTokenizer
    return build(vocab=vocab, merges=merges, model_max_length=77)


def byte_pairs(
    words: Sequence[tuple[str, ...]], alphabet: list[str], specials: list[str]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary (token -> id, specials last) and merges of byte-pair encoding, until every word is one token.

    Sennrich et al., arXiv 1508.07909, algorithm 1, with ties broken by the alphabet: `tokenizers`' own trainer breaks
    them by hash order, so its vocabulary differs from one run to the next.
    """
    counts = Counter(words)
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        counts = Counter({_merged(word, merges[-1]): count for word, count in counts.items()})
    tokens = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges), *specials])
    return {token: index for index, token in enumerate(tokens)}, merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with every occurrence of `pair`, from the left, as one symbol."""
    found: list[str] = []
    for symbol in word:
        if found and (found[-1], symbol) == pair:
            found[-1] += symbol
        else:
            found.append(symbol)
    return tuple(found)
