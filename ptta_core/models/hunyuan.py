"""HunyuanVideo in diffusers' layout: load it, encode clips and prompts for it, generate with it.

All that is special to this model is here: the prompt template, the latent scale, the time and guidance units, the
scheduler. The loading code knows folders and hub ids only, so a tiny random model takes the same path as a real one.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE, HunyuanVideoPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import save
from transformers import CLIPTextModel, CLIPTokenizer, LlamaModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from ptta_core.buckets import TILING
from ptta_core.models import fp8

TIME_UNITS = 1000.0  # the transformer takes t in 0..1000, kept float; guidance comes in the same unit
MAX_TEXT_TOKENS = 256  # after the template; the pipeline's default, and what the model was trained with

TEMPLATE: dict[str, Any] = DEFAULT_PROMPT_TEMPLATE
Device = str | torch.device


class NotFinite(ValueError):
    """A model's output holds NaN or infinity."""

    kind = "not_finite"


class WrongTokenizer(ValueError):
    """The text tokenizer does not cut the prompt template as the model expects."""


class Text(NamedTuple):
    """A prompt as the transformer reads it; on the CPU."""

    text: torch.Tensor  # [L, D], real tokens only
    pooled: torch.Tensor  # [P]
    tokens: int  # L
    cut: int  # tokens that the model was not shown: those of the prompt's end, above 256


def torch_dtype(name: str | torch.dtype) -> torch.dtype:
    """The torch type called "bfloat16" or "float32". Raises ValueError naming the choices."""
    if isinstance(name, torch.dtype):
        return name
    if name not in ("bfloat16", "float32"):
        raise ValueError(f"dtype {name!r}; choices: bfloat16, float32")
    return getattr(torch, name)


def pick_device(name: str) -> str:
    """Cuda where there is one, else cpu, for "auto"; any other name unchanged."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """The libraries' progress bars off and warnings down to errors, for what is expected here: CLIP reads 77 tokens."""
    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
            library.disable_progress_bar()
        yield
    finally:
        for library, level, bar in zip(libraries, levels, bars):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()


# ------------------------------------------------------------------------------------------------ loading


@quietly()
def load_transformer(
    path: str, revision: str | None = None, dtype: str | torch.dtype = "bfloat16", device: Device = "cpu",
    storage: str = "dtype",
) -> HunyuanVideoTransformer3DModel:  # fmt: skip
    """The transformer alone, frozen, in eval mode; safetensors only. `storage` "fp8": see fp8.store.

    Raises OSError where there is none.
    """
    model = HunyuanVideoTransformer3DModel.from_pretrained(
        path, subfolder="transformer", revision=revision, torch_dtype=torch_dtype(dtype), use_safetensors=True
    )
    if storage == "fp8":
        model = fp8.store(model)
    return model.requires_grad_(False).eval().to(device)


@quietly()
def load_vae(
    path: str, revision: str | None = None, dtype: str | torch.dtype = "bfloat16", device: Device = "cpu",
    tile: bool = True,
) -> AutoencoderKLHunyuanVideo:  # fmt: skip
    """The VAE, frozen. `tile`: pictures over 256 px wide or high in overlapping tiles; in time it always tiles.

    Its tiles are those of buckets.TILING, whatever the library's defaults.
    """
    vae = AutoencoderKLHunyuanVideo.from_pretrained(
        path, subfolder="vae", revision=revision, torch_dtype=torch_dtype(dtype), use_safetensors=True
    )
    side, side_stride = TILING["side_px"], TILING["side_stride_px"]
    vae.enable_tiling(side, side, TILING["frames"], side_stride, side_stride, TILING["frames_stride"])
    if not tile:
        vae.disable_tiling()
    return vae.requires_grad_(False).eval().to(device)


@quietly()
def load_llama_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerFast:
    """The Llama 3 tokenizer exactly as its tokenizer.json says, right-padded.

    Never through LlamaTokenizerFast, the class that the published folder names: transformers 5 makes that class put
    Llama 2's word splitting in place of the file's, and every prompt then reads differently, without a word
    (huggingface/transformers pull request 45345). Raises WrongTokenizer when the template's beginning is not the
    number of tokens that the pipeline drops.
    """
    place: dict[str, Any] = {"subfolder": "tokenizer", "revision": revision}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path, **place)
    tokenizer.padding_side = "right"  # the transformer's mask counts tokens from the left
    before, drop = TEMPLATE["template"].split("{}")[0], TEMPLATE["crop_start"]
    if (found := len(tokenizer(before).input_ids)) != drop:
        raise WrongTokenizer(f"the tokenizer makes {found} tokens of the prompt template's beginning, not {drop}")
    return tokenizer


def make_pipeline(**parts: Any) -> Any:
    """Diffusers' pipeline of these parts; those not given are None, and what needs them cannot be called."""
    names = ("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    build: Any = HunyuanVideoPipeline
    return build(**(dict.fromkeys(names) | parts))


# ----------------------------------------------------------------------------------------------- encoding


class TextEncoder:
    """Llama and CLIP: prompts in, what the transformer reads out. By far the largest part of encoding (16 GB)."""

    @quietly()
    def __init__(
        self, path: str, revision: str | None = None, dtype: str | torch.dtype = "bfloat16", device: Device = "cpu"
    ) -> None:
        place: dict[str, Any] = {"revision": revision}
        how = place | {"dtype": torch_dtype(dtype), "use_safetensors": True}
        llama: Any = LlamaModel.from_pretrained(path, subfolder="text_encoder", **how)
        clip: Any = CLIPTextModel.from_pretrained(path, subfolder="text_encoder_2", **how)
        self.tokenizer = load_llama_tokenizer(path, revision)
        self.device = torch.device(device)
        self.pipeline = make_pipeline(  # only for its encode_prompt
            tokenizer=self.tokenizer,
            tokenizer_2=CLIPTokenizer.from_pretrained(path, subfolder="tokenizer_2", **place),
            text_encoder=llama.requires_grad_(False).eval().to(device),
            text_encoder_2=clip.requires_grad_(False).eval().to(device),
        )  # fmt: skip

    @quietly()
    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> list[Text]:
        """One Text a prompt. Each goes through alone, so its numbers do not depend on its neighbours."""
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: str) -> Text:
        text_1LD, pooled_1P, mask_1L = self.pipeline.encode_prompt(
            [prompt], device=self.device, max_sequence_length=MAX_TEXT_TOKENS
        )
        tokens = int(mask_1L.sum())
        whole = len(self.tokenizer(TEMPLATE["template"].format(prompt)).input_ids)
        cut = max(0, whole - TEMPLATE["crop_start"] - MAX_TEXT_TOKENS)
        return Text(_finite(text_1LD[0, :tokens], "text").cpu(), _finite(pooled_1P[0], "text").cpu(), tokens, cut)


class Encoder:
    """Clips and prompts as what the transformer learns from. `dtype` is what the models compute in."""

    def __init__(
        self, path: str, revision: str | None = None, dtype: str | torch.dtype = "bfloat16", device: Device = "cpu",
        tile: bool = True,
    ) -> None:  # fmt: skip
        self.vae: Any = load_vae(path, revision, dtype, device, tile)
        self.text_encoder = TextEncoder(path, revision, dtype, device)

    @torch.no_grad()
    def latents(self, video: np.ndarray | Sequence[np.ndarray], key: str) -> torch.Tensor:
        """uint8 [T,H,W,3] (T = 4k+1, sides multiples of 16) as scaled latents, float32 [C,(T-1)/4+1,H/8,W/8].

        A sample of the VAE's posterior, its noise seeded by `key`: the same key gives the same latents. On the CPU.
        Raises ValueError for a size off the rules, NotFinite for NaN or infinity.
        """
        video_THWC = torch.from_numpy(np.ascontiguousarray(video))
        frames, height, width, _ = video_THWC.shape
        if frames % 4 != 1 or height % 16 or width % 16:
            raise ValueError(f"{frames} x {height} x {width}: frames must be 4k+1, sides multiples of 16")
        pixels = video_THWC.permute(3, 0, 1, 2)[None].to(self.vae.device).to(self.vae.dtype) / 127.5 - 1.0
        posterior = self.vae.encode(pixels).latent_dist
        generator = torch.Generator("cpu").manual_seed(seed_of(key))  # CPU: the same numbers on every device
        noise = torch.randn(posterior.mean.shape, generator=generator)
        sample = posterior.mean.float().cpu() + posterior.std.float().cpu() * noise
        return _finite(sample[0] * self.vae.config.scaling_factor, "VAE")

    def text(self, prompts: Sequence[str]) -> list[Text]:
        """See TextEncoder."""
        return self.text_encoder(prompts)


def pack(tensors: dict[str, torch.Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file in bfloat16; the same tensors give the same bytes."""
    return save({name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()})


def seed_of(key: str) -> int:
    """A 63-bit seed from any text."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def _finite(tensor: torch.Tensor, what: str) -> torch.Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise NotFinite(f"the {what} encoder gave NaN or infinity")
    return tensor


# ------------------------------------------------------------------------------------- the transformer's call


def model_inputs(
    noisy_BCTHW: torch.Tensor, sigma_B: torch.Tensor, texts: Sequence[torch.Tensor], pooled_BP: torch.Tensor,
    guidance: float, dtype: torch.dtype,
) -> dict[str, Any]:  # fmt: skip
    """The keyword arguments of `transformer(...)`; with return_dict=False its first result is the velocity [B,C,T,H,W].

    sigma: noise level 0..1 (x = (1 - sigma) x0 + sigma noise, velocity = noise - x0), passed on as float 0..1000.
    texts: [L_i, D] each, padded on the right to the longest and masked. guidance: 1 in training, 6 in generation.
    """
    device, longest = noisy_BCTHW.device, max(len(text) for text in texts)
    text_BLD = torch.zeros(len(texts), longest, texts[0].shape[-1], dtype=dtype, device=device)
    mask_BL = torch.zeros(len(texts), longest, dtype=dtype, device=device)
    for row, text in enumerate(texts):
        text_BLD[row, : len(text)] = text.to(device, dtype)
        mask_BL[row, : len(text)] = 1
    return {
        "hidden_states": noisy_BCTHW.to(dtype),
        "timestep": sigma_B.to(device).float() * TIME_UNITS,
        "encoder_hidden_states": text_BLD,
        "encoder_attention_mask": mask_BL,
        "pooled_projections": pooled_BP.to(device, dtype),
        "guidance": torch.full((len(texts),), guidance, dtype=dtype, device=device) * TIME_UNITS,
        "return_dict": False,
    }


# --------------------------------------------------------------------------------------------- generation


class Generator:
    """Prompts in, videos out, with the base model and its adapters sharing one transformer in memory.

    The text encoders are in memory only while prompts are embedded: `embed` all prompts first where they are known.
    transformer: one that is at hand, with whatever adapter is in it, in place of a new one. decode: with the VAE, so
    that it can make pictures.
    """

    def __init__(
        self, path: str, revision: str | None = None, dtype: str | torch.dtype = "bfloat16", device: Device = "cpu",
        storage: str = "dtype", transformer: Any = None, decode: bool = True,
    ) -> None:  # fmt: skip
        self.path, self.revision, self.dtype, self.device = path, revision, torch_dtype(dtype), device
        self.storage = storage  # of the transformer: see load_transformer
        self.prompts: dict[str, Text] = {}
        self.adapter = ""  # the adapter in the transformer, enabled or not
        self.pipeline = make_pipeline(
            transformer=transformer or self.load(),
            vae=load_vae(path, revision, dtype, device) if decode else None,
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(path, subfolder="scheduler", revision=revision),
        )  # fmt: skip
        self.pipeline.set_progress_bar_config(disable=True)

    def load(self) -> HunyuanVideoTransformer3DModel:
        """The transformer as the base is stored, without an adapter."""
        return load_transformer(self.path, self.revision, self.dtype, self.device, self.storage)

    def embed(self, prompts: Sequence[str]) -> None:
        """Embed every prompt not seen before; loads the text encoders where there is one, and lets them go."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.prompts]
        if new:
            encoder = TextEncoder(self.path, self.revision, self.dtype, self.device)
            self.prompts.update(zip(new, encoder(new)))

    def use(self, adapter: str) -> None:
        """Generate with the adapter in this file from now on, native or a plain LoRA; "" for the base model."""
        if not adapter and not self.adapter:
            return
        from ptta_core.models import hydralora, lora_reading

        transformer = self.pipeline.transformer
        if adapter and adapter != self.adapter:
            try:
                lora_reading.use(transformer, adapter)
            except BaseException:
                hydralora.remove(transformer)
                self.adapter = ""
                raise
            self.adapter = adapter
        hydralora.set_enabled(transformer, bool(adapter))

    def __call__(
        self, prompt: str, seed: int, steps: int, guidance: float, shift: float, frames: int, height: int, width: int,
        labels: Sequence[float] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """A video, uint8 [T,H,W,3]. The first noise is drawn on the CPU, so a seed means the same on every device.

        Frames 4k+1, sides multiples of 16. labels: what an adapter with a label gate reads, one share a branch; None
        lets its branches count alike. Raises NotFinite for NaN or infinity, ValueError for the wrong number of labels.
        """
        return self.pictures(self.latents(prompt, seed, steps, guidance, shift, frames, height, width, labels))

    def latents(
        self, prompt: str, seed: int, steps: int, guidance: float, shift: float, frames: int, height: int, width: int,
        labels: Sequence[float] | None = None, on_step: Callable[[], None] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """The scaled latents of a video, float32 [1,C,T,h,w] on the device. on_step: called after every pass."""
        self.embed([prompt])
        text, pooled, tokens, _ = self.prompts[prompt]
        pipeline = self.pipeline
        self._condition(labels, pooled)
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config, shift=shift)
        return pipeline(
            prompt_embeds=text[None].to(self.device), pooled_prompt_embeds=pooled[None].to(self.device),
            prompt_attention_mask=torch.ones(1, tokens, device=self.device), num_inference_steps=steps,
            guidance_scale=guidance, num_frames=frames, height=height, width=width, output_type="latent",
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=None if on_step is None else lambda *_: on_step() or {},
        ).frames  # fmt: skip

    @torch.no_grad()
    def pictures(self, latents_1CTHW: torch.Tensor) -> np.ndarray:
        """Scaled latents as uint8 [T,H,W,3], as the pipeline decodes them. Raises NotFinite."""
        vae = self.pipeline.vae
        decoded = vae.decode(latents_1CTHW.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        video_1TCHW = self.pipeline.video_processor.postprocess_video(decoded, output_type="pt")
        video_THWC = _finite(video_1TCHW[0], "VAE").permute(0, 2, 3, 1)
        return (video_THWC.float() * 255.0).round().to(torch.uint8).cpu().numpy()

    def _condition(self, labels: Sequence[float] | None, pooled_P: torch.Tensor) -> None:
        """What the adapter's gates read. One row for whatever batch: guidance is embedded, every row is this prompt."""
        from ptta_core.models import hydralora

        labels_1N = None if labels is None else torch.tensor([list(labels)], device=self.device)
        hydralora.set_condition(self.pipeline.transformer, labels_1N, pooled_P[None].to(self.device).float())
