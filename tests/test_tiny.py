"""Tiny models: the real classes, the same bytes for the same seed, and able to learn."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ptta_core import models
from ptta_core.config import CaptionConfig, ConfigError, EvaluateConfig, ModelRef, ScoreConfig, SplitConfig
from ptta_core.models import aesthetic, hunyuan, judge, motion, tiny, transnet, vlm

NON_ATTENTION = re.compile(
    r"(transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2))|(single_transformer_blocks\.\d+\.(proj_mlp|proj_out))"
)


def digests(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.hunyuan(tmp_path_factory.mktemp("models") / "tiny", 3)


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert digests(tiny.hunyuan(tmp_path / "again", 3)) == digests(folder)


def test_the_vocabulary_does_not_depend_on_the_process() -> None:
    code = (
        "from ptta_core.models import tiny; words = [tuple(word) for word in tiny.WORDS.split()];"
        "print(tiny.byte_pairs(words, sorted(set(tiny.WORDS)), ['<end>'])[1])"
    )
    found = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
        found.add(done.stdout)
    assert len(found) == 1 and len(found.pop()) > 1000


def test_another_seed_other_weights_same_tokenizers(folder: Path, tmp_path: Path) -> None:
    before, after = digests(folder), digests(tiny.hunyuan(tmp_path / "other", 4))
    weights = {name for name in before if name.endswith(".safetensors")}
    assert len(weights) == 4
    assert {name for name in before if before[name] != after[name]} == weights | {"NOTE.txt"}


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    tiny.hunyuan(tmp_path / "tiny", 0)
    assert torch.equal(torch.rand(3), expected)


def test_a_failed_write_leaves_nothing_and_an_existing_folder_stays(tmp_path: Path) -> None:
    def fail(new: Path) -> None:
        (new / "half.json").write_text("{")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        tiny._once(tmp_path / "tiny", fail)
    assert list(tmp_path.iterdir()) == []

    def lose_the_race(new: Path) -> None:
        (new / "mine").touch()
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "theirs").touch()

    tiny._once(tmp_path / "tiny", lose_the_race)
    assert [file.name for file in (tmp_path / "tiny").iterdir()] == ["theirs"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


def test_the_pipeline_itself_loads_it_and_its_videos_are_neither_constant_nor_nan(folder: Path) -> None:
    from diffusers import HunyuanVideoPipeline

    pipeline = HunyuanVideoPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        "a girl runs", height=48, width=64, num_frames=5, num_inference_steps=4, output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).frames[0]  # fmt: skip
    assert video.shape == (5, 48, 64, 3)
    assert 0.2 < video.mean() < 0.8 and video.std() > 0.1  # NaN would fail both
    assert abs(video[1:] - video[:-1]).mean() > 0.005  # it moves


def test_the_note_says_that_the_weights_are_random(folder: Path) -> None:
    note = (folder / "NOTE.txt").read_text()
    assert "Random weights" in note and "never trained" in note and "seed 3" in note


def test_real_shape_rules(folder: Path) -> None:
    model = hunyuan.load_transformer(str(folder), dtype="float32")
    assert model.config.patch_size == 2 and model.config.in_channels == 16 and model.config.guidance_embeds
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert sum(bool(NON_ATTENTION.fullmatch(name)) for name in names) == 2 * 4 + 2 * 2
    assert 100_000 < sum(parameter.numel() for parameter in model.parameters()) < 300_000
    vae = hunyuan.load_vae(str(folder), dtype="float32")
    assert (vae.spatial_compression_ratio, vae.temporal_compression_ratio, vae.config.latent_channels) == (8, 4, 16)


def test_the_template_begins_with_95_tokens_and_text_round_trips() -> None:
    tokenizer = tiny.llama3_tokenizer()
    assert len(tokenizer(hunyuan.TEMPLATE["template"].split("{}")[0]).input_ids) == 95
    text = "A zebra's café, 1,234 frames — très vite! 漫画"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer.tokenize("a girl runs")[:2] == ["a", "Ġgirl"]


def test_clip_tokenizer_ends_with_the_highest_id() -> None:
    tokenizer = tiny.clip_l_tokenizer()
    found = tokenizer("a red ball").input_ids
    assert tokenizer.convert_ids_to_tokens(found)[1:-1] == ["a</w>", "red</w>", "ball</w>"]
    assert found[-1] == len(tokenizer) - 1 == max(found)


def test_byte_pairs_follow_the_paper() -> None:
    words = [("l", "o", "w", "</w>")] * 5 + [("l", "o", "w", "e", "r", "</w>")] * 2
    words += [("n", "e", "w", "e", "s", "t", "</w>")] * 6 + [("w", "i", "d", "e", "s", "t", "</w>")] * 3
    vocab, merges = tiny.byte_pairs(words, ["</w>", *"deilnorstw"], ["<end>"])
    # arXiv 1508.07909, algorithm 1's example: counts 9, 9, 9, then 7, 7; equal counts go by the alphabet
    assert merges[:5] == [("e", "s"), ("es", "t"), ("est", "</w>"), ("l", "o"), ("lo", "w")]
    assert {"low</w>", "lower</w>", "newest</w>", "widest</w>"} <= set(vocab)
    assert vocab["<end>"] == len(vocab) - 1 and sorted(vocab.values()) == list(range(len(vocab)))


def test_an_adapter_lowers_the_training_loss(folder: Path) -> None:
    from peft import LoraConfig

    torch.manual_seed(0)
    model = hunyuan.load_transformer(str(folder), dtype="float32")
    model.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=NON_ATTENTION.pattern))
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=1e-2, weight_decay=0)
    clean = torch.randn(2, 16, 2, 6, 8).cumsum(-1) / 3  # smooth along the width
    texts, pooled = [torch.randn(5, 32), torch.randn(7, 32)], torch.randn(2, 16)
    losses = []
    for _ in range(60):
        noise, sigma = torch.randn_like(clean), torch.rand(2)
        noisy = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))
        velocity = model(**hunyuan.model_inputs(noisy, sigma, texts, pooled, 1.0, torch.float32))[0]
        loss = torch.nn.functional.mse_loss(velocity, noise - clean)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


# ------------------------------------------------------------------------------------- every kind by its id


def _ref(kind: str) -> ModelRef:
    return ModelRef(id=f"tiny:{kind}", revision="1")


def _pictures(count: int, height: int = 128, width: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def _raft(folder: str) -> None:
    flow = motion.make_flow(ScoreConfig(motion="raft", motion_model=_ref("raft")), models_folder=folder)
    first, second = _pictures(2)[..., 0]
    assert flow(first, second).shape == (128, 128, 2)


def _laion(folder: str) -> None:
    config = ScoreConfig(aesthetic="laion-v2", aesthetic_model=_ref("clip"), aesthetic_head=_ref("laion-head"))
    first, second = aesthetic.make_aesthetic(config, models_folder=folder)(list(_pictures(2)))
    assert first != second


def _vlm(folder: str) -> None:
    config = CaptionConfig(captioner="transformers", model=_ref("vlm"), max_new_tokens=4)
    made = vlm.load_vlm(config, _ref("vlm"), models_folder=folder)
    assert made.model.config.model_type == "qwen2_5_vl" and made.processor.tokenizer.eos_token == "<|im_end|>"


def _videoscore(folder: str) -> None:
    config = EvaluateConfig(judges=["videoscore"], videoscore=_ref("videoscore"))
    values = judge.make_judge("videoscore", config, folder)(_pictures(3, 64, 64), "a ball", 24.0)
    assert len(values) == 5 and len(set(values.values())) == 5


def _hunyuan(folder: str) -> None:
    path, revision = models.resolve(_ref("hunyuan"), folder)
    assert hunyuan.load_transformer(path, revision).config.pooled_projection_dim == tiny.POOLED_WIDTH


def _transnet(folder: str) -> None:
    network = transnet.make_network(SplitConfig(detector="transnetv2", model=_ref("transnet")), models_folder=folder)
    assert network is not None and network(_pictures(3, 27, 48)).shape == (3, 2)


LOADERS = {"hunyuan": _hunyuan, "raft": _raft, "clip": _laion, "laion-head": _laion, "vlm": _vlm,
           "videoscore": _videoscore, "transnet": _transnet}  # fmt: skip


@pytest.mark.parametrize("kind", tiny.MAKERS)
def test_every_kind_is_made_on_demand_and_loaded_by_the_real_code(kind: str, tmp_path: Path) -> None:
    LOADERS[kind](str(tmp_path))
    path, revision = models.resolve(_ref(kind), tmp_path)
    assert Path(path) == tmp_path / f"tiny-{kind}-1-v{tiny.TINY_VERSION}" and revision is None
    assert list(Path(path).rglob("*.safetensors"))
    assert models.describe(_ref(kind)) == f"tiny:{kind}@1 (random weights)"


def test_an_unknown_kind_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tiny:dragon.*tiny:hunyuan, .*tiny:vlm, tiny:videoscore"):
        models.resolve(_ref("dragon"), tmp_path)
    assert list(tmp_path.iterdir()) == []
