"""HunyuanVideo: what we load, encode and generate is what diffusers' own pipeline would."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptta_core import models
from ptta_core.config import ConfigError, ModelRef
from ptta_core.models import hunyuan

TINY = ModelRef(id="tiny:hunyuan", revision="0")
SAMPLER = {"steps": 3, "guidance": 6.0, "shift": 7.0, "frames": 5, "height": 32, "width": 48}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return models.resolve(TINY, tmp_path_factory.mktemp("models"))[0]


@pytest.fixture(scope="module")
def encoder(path: str) -> hunyuan.Encoder:
    return hunyuan.Encoder(path, dtype="float32")


@pytest.fixture(scope="module")
def generator(path: str) -> hunyuan.Generator:
    return hunyuan.Generator(path, dtype="float32")


@pytest.fixture(scope="module")
def pipeline(path: str) -> Any:
    from diffusers import HunyuanVideoPipeline

    loaded = HunyuanVideoPipeline.from_pretrained(path)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def copy(path: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(path, tmp_path / "copy"))


def picture(frames: int = 9, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------ which model it is


def test_resolve_tiny_hub_and_local(path: str, tmp_path: Path) -> None:
    assert Path(path).is_absolute() and Path(path).name == f"tiny-hunyuan-0-v{models.TINY_VERSION}"
    assert models.resolve(ModelRef(id=path), tmp_path) == (path, None)
    assert models.resolve(ModelRef(id="org/name", revision="abc"), tmp_path) == ("org/name", "abc")


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (ModelRef(id="/no/such/folder"), "does not exist"),
        (ModelRef(id="tiny:gpt"), "tiny:hunyuan"),
        (ModelRef(id="tiny:hunyuan", revision="main"), "whole number"),
    ],
)
def test_resolve_names_what_is_wrong(ref: ModelRef, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        models.resolve(ref, tmp_path)


def test_identity_of_a_local_model_is_its_content_not_its_place(copy: Path, path: str) -> None:
    known = models.identity(ModelRef(id=path))
    assert known["id"] == "local" and models.identity(ModelRef(id=str(copy))) == known
    assert models.describe(ModelRef(id=str(copy))) == f"local:{known['digest']}"
    config = copy / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"rope_theta": 256.0', '"rope_theta": 255.0'))
    changed = models.identity(ModelRef(id=str(copy)))
    assert changed != known
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert models.identity(ModelRef(id=str(copy))) not in (known, changed)


def test_identity_of_hub_and_tiny_models() -> None:
    assert models.identity(ModelRef(id="org/name", revision="abc")) == {"id": "org/name", "revision": "abc"}
    tiny = models.identity(ModelRef(id="tiny:hunyuan"))
    assert tiny == models.identity(TINY) == {"id": "tiny:hunyuan", "revision": "0", "tiny_version": models.TINY_VERSION}
    assert "random" in models.describe(TINY)


def test_identity_reads_only_the_ends_of_a_huge_file(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {}}).encode()
    weights = tmp_path / "model.safetensors"
    with open(weights, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(200 << 30)  # sparse: reading all of it would take minutes
    before = models.identity(ModelRef(id=str(tmp_path)))
    with open(weights, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert models.identity(ModelRef(id=str(tmp_path))) != before


def test_a_folder_of_pickles_is_refused(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match="safetensors"):
        models.identity(ModelRef(id=str(tmp_path / "copy" / "scheduler")))
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(OSError):
        hunyuan.load_transformer(str(copy))


def test_identity_imports_no_torch() -> None:
    code = (
        "import sys; from ptta_core.config import ModelRef; from ptta_core.models import identity;"
        "identity(ModelRef(id='tiny:hunyuan'));"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------- text


def test_text_is_what_the_pipeline_embeds(encoder: hunyuan.Encoder, pipeline: Any) -> None:
    prompts = ["a girl runs", "a red ball on the grass, {braces} and %s", ""]
    text_BLD, pooled_BP, mask_BL = pipeline.encode_prompt(prompts)
    for row, found in enumerate(encoder.text(prompts)):
        assert found.tokens == int(mask_BL[row].sum()) == len(found.text) and not found.cut
        torch.testing.assert_close(found.text, text_BLD[row, : found.tokens].detach(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.pooled, pooled_BP[row].detach(), atol=1e-5, rtol=1e-5)


def test_long_prompts_are_cut_and_say_so(encoder: hunyuan.Encoder) -> None:
    fits, cut = encoder.text(["a " * 200, "a " * 300])
    assert not fits.cut and fits.tokens < 256
    assert cut.tokens == 256 and cut.cut == fits.tokens + 100 - 256  # a token a word


def test_the_tokenizer_file_is_followed_whatever_class_the_folder_names(copy: Path, encoder: hunyuan.Encoder) -> None:
    from transformers import LlamaTokenizerFast

    config = copy / "tokenizer" / "tokenizer_config.json"
    named = json.loads(config.read_text()) | {"tokenizer_class": "LlamaTokenizerFast", "padding_side": "left"}
    config.write_text(json.dumps(named))
    text = "a girl and a boy on green grass"
    expected = encoder.text_encoder.tokenizer(text).input_ids
    tokenizer = hunyuan.load_llama_tokenizer(str(copy))
    assert tokenizer(text).input_ids == expected and tokenizer.padding_side == "right"
    # The trap this is about; once the library is mended this line fails and the loader's comment can go.
    assert LlamaTokenizerFast.from_pretrained(copy / "tokenizer")(text).input_ids != expected


def test_a_tokenizer_that_cuts_the_template_otherwise_is_refused(copy: Path) -> None:
    file = copy / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:50]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(hunyuan.WrongTokenizer, match="not 95"):
        hunyuan.load_llama_tokenizer(str(copy))


# ---------------------------------------------------------------------------------------------- latents


def test_latents_are_a_seeded_sample_of_the_posterior(encoder: hunyuan.Encoder) -> None:
    first, again, other = (encoder.latents(picture(), key) for key in ("a", "a", "b"))
    assert first.shape == (16, 3, 4, 6) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)
    pixels = torch.from_numpy(picture()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    posterior = encoder.vae.encode(pixels).latent_dist
    off = (first / 0.476986 - posterior.mean[0]) / posterior.std[0]  # unit noise, if mean, std and scale are right
    assert abs(off.mean()) < 0.15 and 0.9 < off.std() < 1.1
    assert 0.3 < first.std() < 3  # neither constant nor wild


@pytest.mark.parametrize("size", [(8, 32, 48), (9, 40, 48), (9, 32, 40)])
def test_sizes_off_the_rules_are_refused(encoder: hunyuan.Encoder, size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"4k\+1"):
        encoder.latents(picture(*size), "a")


def test_nan_is_an_error_not_a_latent(path: str) -> None:
    broken = hunyuan.Encoder(path, dtype="float32")
    broken.vae.quant_conv.weight[:] = float("nan")
    with pytest.raises(hunyuan.NotFinite):
        broken.latents(picture(), "a")


def test_tiling_matters_only_above_its_tile(path: str, encoder: hunyuan.Encoder) -> None:
    untiled = hunyuan.Encoder(path, dtype="float32", tile=False)
    assert torch.equal(untiled.latents(picture(1, 64, 64), "a"), encoder.latents(picture(1, 64, 64), "a"))
    large = picture(1, 48, 288)
    assert untiled.latents(large, "a").shape == encoder.latents(large, "a").shape == (16, 1, 6, 36)
    assert not torch.equal(untiled.latents(large, "a"), encoder.latents(large, "a"))


# ------------------------------------------------------------------------------------------ transformer


def test_the_transformer_is_frozen(path: str) -> None:
    model = hunyuan.load_transformer(path, dtype="bfloat16")
    assert not model.training and model.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="float32"):
        hunyuan.load_transformer(path, dtype="float16")


def test_padding_to_the_longest_text_changes_nothing(path: str, encoder: hunyuan.Encoder) -> None:
    model = hunyuan.load_transformer(path, dtype="float32")
    found = encoder.text(["a dog", "a bird flies over the sea and over the house"])
    noisy, sigma = torch.randn(2, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.9])
    texts, pooled = [one.text for one in found], torch.stack([one.pooled for one in found])
    together = hunyuan.model_inputs(noisy, sigma, texts, pooled, 1.0, torch.float32)
    assert together["timestep"].tolist() == pytest.approx([300.0, 900.0])
    assert together["guidance"].tolist() == [1000.0, 1000.0]
    with torch.no_grad():
        velocity = model(**together)[0]
        for row in range(2):
            one = slice(row, row + 1)
            alone = hunyuan.model_inputs(noisy[one], sigma[one], texts[one], pooled[one], 1.0, torch.float32)
            torch.testing.assert_close(model(**alone)[0][0], velocity[row], atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------- generation


def test_generation_is_the_pipelines(generator: hunyuan.Generator, pipeline: Any) -> None:
    ours = generator("a girl runs", 7, **SAMPLER)
    theirs = pipeline(
        "a girl runs", height=32, width=48, num_frames=5, num_inference_steps=3, guidance_scale=6.0, output_type="np",
        generator=torch.Generator().manual_seed(7),
    ).frames[0]  # fmt: skip
    assert ours.dtype == np.uint8 and ours.shape == (5, 32, 48, 3)
    assert np.abs(ours - theirs * 255).max() < 1  # rounding only


def test_every_setting_reaches_the_video(generator: hunyuan.Generator) -> None:
    base = generator("a girl runs", 7, **SAMPLER)
    assert np.array_equal(base, generator("a girl runs", 7, **SAMPLER))
    for other in ({"guidance": 1.0}, {"shift": 3.0}, {"steps": 4}):
        assert not np.array_equal(base, generator("a girl runs", 7, **(SAMPLER | other))), other
    assert not np.array_equal(base, generator("a girl runs", 8, **SAMPLER))
    assert not np.array_equal(base, generator("a dog runs over the sea", 7, **SAMPLER))
    assert np.array_equal(base, generator("a girl runs", 7, **SAMPLER))  # the shift did not stick


def test_text_encoders_leave_memory_once_prompts_are_embedded(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = hunyuan.Generator(path, dtype="float32")
    generator.embed(["a girl runs", "a dog"])
    assert generator.pipeline.text_encoder is None
    monkeypatch.setattr(hunyuan, "TextEncoder", None)  # any further load would fail
    generator("a dog", 0, **SAMPLER)
