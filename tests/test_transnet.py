"""TransNetV2 against plain references of its parts, its windows against one long pass, and it as a detector of split.

The weights are random everywhere here: nothing says how well the network finds shots.
"""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from ptta_core import cartoon, video
from ptta_core.config import ModelRef, Recipe, SplitConfig
from ptta_core.models import shot_features, shots, transnet
from ptta_core.models.weight_files import WeightsError
from ptta_core.rows import Clip
from ptta_core.stages import split

TINY = ModelRef(id="tiny:transnet", revision="1")
CONFIG = SplitConfig(detector="transnetv2", model=TINY, min_clip_s=0.1)
REACH = 16 * transnet.STACKS + transnet.LOOKUP // 2  # frames: 8 + 8 a stack, then the likeness


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> transnet.Predictor:
    return transnet.load(TINY, models_folder=folder)


def _frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 27, 48, 3), dtype=np.uint8)


def _logits(predictor: transnet.Predictor, frames_NHW3: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return predictor.model(torch.from_numpy(frames_NHW3)[None])[0].numpy()


# ------------------------------------------------------------------------------------------------- the parts


def test_the_parameters_have_the_published_names_and_shapes(predictor: transnet.Predictor) -> None:
    """Names and sizes as the authors' PyTorch port lists them."""
    shapes = {name: tuple(one.shape) for name, one in predictor.model.state_dict().items()}
    expected = {
        "frame_sim_layer.projection.weight": (128, 448), "frame_sim_layer.projection.bias": (128,),
        "frame_sim_layer.fc.weight": (128, 101), "frame_sim_layer.fc.bias": (128,),
        "color_hist_layer.fc.weight": (128, 101), "color_hist_layer.fc.bias": (128,),
        "fc1.weight": (1024, 4864), "fc1.bias": (1024,), "cls_layer1.weight": (1, 1024), "cls_layer1.bias": (1,),
        "cls_layer2.weight": (1, 1024), "cls_layer2.bias": (1,),
    }  # fmt: skip
    for stack, (channels, filters) in enumerate([(3, 16), (64, 32), (128, 64)]):
        for block in range(2):
            name = f"SDDCNN.{stack}.DDCNN.{block}"
            into = 4 * filters if block else channels
            for dilation in (1, 2, 4, 8):
                conv = f"{name}.Conv3D_{dilation}.layers"
                expected[f"{conv}.0.weight"] = (2 * filters, into, 1, 3, 3)
                expected[f"{conv}.1.weight"] = (filters, 2 * filters, 3, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var"):
                expected[f"{name}.bn.{part}"] = (4 * filters,)
            expected[f"{name}.bn.num_batches_tracked"] = ()
    assert shapes == expected


def test_histograms_are_numpys() -> None:
    frames = _frames(6).reshape(2, 3, 27, 48, 3)
    found = transnet.histograms(torch.from_numpy(frames)).numpy()
    for batch, frame in np.ndindex(2, 3):
        true, _ = np.histogramdd(frames[batch, frame].reshape(-1, 3), bins=(8, 8, 8), range=[(0, 256)] * 3)
        np.testing.assert_allclose(found[batch, frame], true.ravel() / np.linalg.norm(true), atol=1e-6)


@pytest.mark.parametrize("frames", [3, 100, 130])
def test_likeness_by_loops(frames: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(2, frames, 5)).astype(np.float32)
    found = transnet.likeness(torch.from_numpy(vectors)).numpy()
    true = np.zeros((2, frames, 101), np.float32)
    for batch, here, column in np.ndindex(true.shape):
        other = here + column - 50
        if 0 <= other < frames:
            true[batch, here, column] = vectors[batch, here] @ vectors[batch, other]
    np.testing.assert_allclose(found, true, atol=1e-5)


def test_a_convolution_by_loops(predictor: transnet.Predictor) -> None:
    """Over space without gaps, then over time 8 frames apart, zeros outside."""
    conv = predictor.model.SDDCNN[0].DDCNN[0].get_submodule("Conv3D_8")
    across, along = (layer.weight.detach().numpy() for layer in conv.layers)
    pictures = np.random.default_rng(2).normal(size=(3, 20, 4, 5)).astype(np.float32)
    with torch.inference_mode():
        found = conv(torch.from_numpy(pictures)[None])[0].numpy()
    padded = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)))
    middle = np.zeros((32, 20, 4, 5), np.float32)
    for y, x in np.ndindex(3, 3):
        middle += np.einsum("oc,cthw->othw", across[:, :, 0, y, x], padded[:, :, y : y + 4, x : x + 5])
    true = np.zeros((16, 20, 4, 5), np.float32)
    for tap, frame in np.ndindex(3, 20):
        if 0 <= (seen := frame + 8 * (tap - 1)) < 20:
            true[:, frame] += np.einsum("oc,chw->ohw", along[:, :, tap, 0, 0], middle[:, seen])
    np.testing.assert_allclose(found, true, atol=1e-4)


def test_a_stack_rectifies_adds_and_halves(predictor: transnet.Predictor) -> None:
    stack = predictor.model.SDDCNN[0]
    pictures = torch.rand(1, 3, 5, 27, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first = stack.DDCNN[0](pictures).clamp(min=0)
        added = (first + stack.DDCNN[1](first).clamp(min=0))[0].numpy()
        found = stack(pictures)[0].numpy()
    assert found.shape == (64, 5, 13, 24)
    true = added[:, :, :26].reshape(64, 5, 13, 2, 24, 2).mean((3, 5))
    np.testing.assert_allclose(found, true, atol=1e-5)


def test_the_heads_read_colours_likeness_and_features_in_the_published_order(predictor: transnet.Predictor) -> None:
    """fc1's columns: 128 of the histograms, 128 of the likeness, then features by row, column and channel."""
    model, frames = predictor.model, torch.from_numpy(_frames(4)[None])
    weights = {name: one.numpy() for name, one in model.state_dict().items()}
    with torch.inference_mode():
        stacks = [frames.movedim(-1, 1) / 255]
        for stack in model.SDDCNN:
            stacks.append(stack(stacks[-1]))
        likes = [model.color_hist_layer(frames)[0].numpy(), model.frame_sim_layer(stacks[1:])[0].numpy()]
    features = stacks[-1][0].numpy()
    assert features.shape == (256, 4, 3, 6)
    for frame in range(4):
        columns = [likes[0][frame], likes[1][frame]]
        columns += [features[:, frame, row, column] for row in range(3) for column in range(6)]
        hidden = np.maximum(weights["fc1.weight"] @ np.concatenate(columns) + weights["fc1.bias"], 0)
        true = [weights[f"cls_layer{head}.weight"][0] @ hidden + weights[f"cls_layer{head}.bias"][0] for head in (1, 2)]
        np.testing.assert_allclose(_logits(predictor, frames[0].numpy())[frame], true, atol=1e-4)


# ----------------------------------------------------------------------------------------------- the windows


def test_a_frame_sees_so_far_and_no_further(predictor: transnet.Predictor) -> None:
    frames, here = _frames(REACH + 6), 2
    before = _logits(predictor, frames)
    assert before.shape == (REACH + 6, 2)
    frames[here + REACH + 1 :] = 0
    beyond = _logits(predictor, frames)
    np.testing.assert_allclose(beyond[: here + 1], before[: here + 1], atol=1e-5)
    frames[here + 30 :] = 0
    assert np.abs(_logits(predictor, frames)[here] - before[here]).max() > 1e-4


@pytest.mark.parametrize("count", [1, 50, 51, 120])
def test_windows_are_the_network_on_padded_frames(predictor: transnet.Predictor, count: int) -> None:
    frames = _frames(count, count)
    found = predictor(frames)
    padded = np.concatenate([frames[:1].repeat(25, 0), frames, frames[-1:].repeat(100, 0)])
    true = [_logits(predictor, padded[start : start + 100])[25:75] for start in range(0, count, 50)]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.concatenate(true)[:count])), atol=1e-5)
    assert found.dtype == np.float32 and found.shape == (count, 2)


def test_a_window_is_one_long_pass_in_its_middle(predictor: transnet.Predictor, monkeypatch) -> None:
    """With as much context as a frame can see, stitched windows are one pass over everything."""
    context, middle = REACH, 20
    frames = _frames(2 * context + 2 * middle)
    monkeypatch.setattr(transnet, "CONTEXT", context)
    monkeypatch.setattr(transnet, "WINDOW", 2 * context + middle)
    monkeypatch.setattr(transnet, "WINDOWS", 1)
    inner = predictor._batch(frames, range(context, context + 1))
    true = 1 / (1 + np.exp(-_logits(predictor, frames)[context : context + middle]))
    np.testing.assert_allclose(inner, true, atol=1e-5)


def test_frames_of_another_shape_or_type_are_refused(predictor: transnet.Predictor) -> None:
    assert predictor(_frames(0)).shape == (0, 2)
    with pytest.raises(ValueError, match=r"float64 .*not uint8 \[N,27,48,3\]"):
        predictor(np.zeros((2, 27, 48, 3)))
    with pytest.raises(ValueError, match=r"\(2, 48, 27, 3\)"):
        predictor(np.zeros((2, 48, 27, 3), np.uint8))


# ----------------------------------------------------------------------------------------------- the weights


def test_weights_load_with_and_without_the_counters_of_training(
    predictor: transnet.Predictor, folder: Path, tmp_path: Path
) -> None:
    tensors = load_file(next(folder.rglob("*.safetensors")))
    lean = {name: one for name, one in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(lean) == len(tensors) - 6
    save_file(lean, tmp_path / "lean.safetensors")
    again = transnet.load(ModelRef(id=str(tmp_path / "lean.safetensors")))
    assert np.array_equal(again(_frames(30)), predictor(_frames(30)))
    other = transnet.load(ModelRef(id="tiny:transnet", revision="2"), models_folder=tmp_path)
    assert not np.array_equal(other(_frames(30)), predictor(_frames(30)))


def test_what_is_not_this_network_is_refused(folder: Path, tmp_path: Path) -> None:
    path, tensors = tmp_path / "other.safetensors", load_file(next(folder.rglob("*.safetensors")))
    ref = ModelRef(id=str(path))
    save_file({name: one for name, one in tensors.items() if name != "fc1.bias"} | {"fc2": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"1 tensors are missing \['fc1.bias'\], 1 are unknown \['fc2'\]"):
        transnet.load(ref)
    save_file(tensors | {"fc1.bias": torch.zeros(7)}, path)
    with pytest.raises(WeightsError, match=r"fc1.bias is \[7\], not \[1024\]"):
        transnet.load(ref)
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="no safetensors file"):
        transnet.load(ref)


# ---------------------------------------------------------------------------------------------- the decision


def _learned(*likely: tuple[float, float]) -> list[tuple[str, int, int, int]]:
    times = [n / 24 for n in range(len(likely))]
    found = shots.learned(np.array(likely, np.float32), 0.5, range(len(likely)), times)
    return [(one.kind, one.frame, one.pts, one.resume_pts) for one in found]


NO, CUT, PART = (0.1, 0.2), (0.9, 0.9), (0.1, 0.8)


def test_runs_of_likely_frames_are_boundaries() -> None:
    assert _learned(NO, NO, CUT, NO, NO) == [("cut", 3, 3, 3)]  # the frame marked is the last of its shot
    assert _learned(NO, NO, CUT, CUT, NO) == [("cut", 4, 3, 4)]
    assert _learned(NO, PART, PART, CUT, PART, NO, CUT, NO) == [("dissolve", 3, 1, 5), ("cut", 7, 7, 7)]
    assert _learned(NO, PART, PART, PART, NO) == []  # no middle anywhere
    assert _learned(CUT, NO, NO, NO) == [("cut", 1, 0, 1)]
    assert _learned(NO, NO, NO, CUT) == []
    assert _learned(NO, CUT, CUT, CUT) == [("dissolve", 2, 1, 4)]
    assert _learned((0.5, 0.5), NO) == []


def _film(path: Path) -> Path:
    """Four shots of a drawn cartoon, 25 frames each."""
    pictures: list[np.ndarray] = []
    for number, kind in enumerate(("pan", "still", "walk", "zoom")):
        shot = cartoon.Shot(kind, 25, 3.0)
        drawn = cartoon.shot_frames(shot, cartoon.PALETTES[number], random.Random(number))
        pictures += [np.asarray(one.resize((320, 180))) for one in drawn]
    video.write_mp4(path, pictures, 24)
    return path


def test_split_by_a_random_network(tmp_path: Path, folder: Path, predictor: transnet.Predictor) -> None:
    """Chunks give what one pass gives, twice the same, and every clip has its columns. No quality is claimed."""
    tensors = load_file(next(folder.rglob("*.safetensors")))
    low = tensors["cls_layer2.bias"] - 10  # random heads speak at random levels: the first one alone decides here
    save_file(tensors | {"cls_layer2.bias": low}, tmp_path / "model.safetensors")
    config = CONFIG.model_copy(update={"model": ModelRef(id=str(tmp_path / "model.safetensors"))})
    item = split.SplitItem("a", str(_film(tmp_path / "a.mp4")))
    long = split.Long(video.probe(item.path), "")
    whole = split.measured(split.Chunk(item, long, None, None), CONFIG, 1)
    joined = shot_features.join([split.measured(chunk, CONFIG, 1) for chunk in split.chunks_of(item, long, 1.1)])
    assert whole.rgb.shape == (100, 27, 48, 3) and np.array_equal(whole.rgb, joined.rgb)
    likely = predictor(whole.rgb)[:, 0]
    config = config.model_copy(update={"transnet_threshold": float(np.quantile(likely, 0.97))})
    splitter = split.Splitter(config)
    [clips] = splitter([item])
    assert len(clips) > 1 and sum(clip.frames for clip in clips) <= 100
    assert clips == split.clips_of(item, long, joined, config, splitter.network)
    for clip in clips:
        assert clip.end_s - clip.start_s == pytest.approx(clip.frames / 24)
        assert dataclasses.asdict(clip).keys() == {field.name for field in dataclasses.fields(Clip)}
    ranges = [range(round(clip.start_s * 24), round(clip.end_s * 24)) for clip in clips]
    marked = {int(frame) for frame in np.flatnonzero(likely > config.transnet_threshold)}
    assert marked & {frame for one in ranges for frame in one} <= {one[-1] for one in ranges}


def test_a_source_that_is_all_transition_says_so(tmp_path: Path, folder: Path) -> None:
    config = CONFIG.model_copy(update={"transnet_threshold": 1e-6})
    with pytest.raises(split.NoClips, match="every frame is part of a transition by split"):
        split.Splitter(config, models_folder=folder)([split.SplitItem("a", str(_film(tmp_path / "a.mp4")))])


def test_other_detectors_keep_no_pictures() -> None:
    picture = np.zeros((90, 160, 3), np.uint8)
    frames = [video.Frame(n, n, n / 24, picture) for n in range(3)]
    assert shot_features.measure_for(frames, SplitConfig()).rgb.shape == (0, 27, 48, 3)
    assert shot_features.measure_for(frames, CONFIG).rgb.shape == (3, 27, 48, 3)
    with pytest.raises(ValueError, match="none was given"):
        shots.find_boundaries(frames, CONFIG)


def test_the_recipe_names_the_network_and_the_fingerprint_has_it(folder: Path) -> None:
    with pytest.raises(ValidationError, match=r"split\.detector transnetv2 needs split\.model \(id and revision\)"):
        SplitConfig(detector="transnetv2")
    recipe = Recipe(split=CONFIG)
    assert recipe.models()["split.model"] == TINY
    parts = split.split.parts(recipe, folder)
    assert parts["model tiny:transnet"]["revision"] == "1" and parts["split.transnet_threshold"] == 0.5
    plain = split.split.parts(Recipe(split=SplitConfig(model=TINY, transnet_threshold=0.4)), folder)
    assert plain == split.split.parts(Recipe(), folder)
    assert not any(name.startswith("model ") or "transnet" in name for name in plain)
