"""`ptta weights convert`: published .pth files become safetensors that the real loaders take, and nothing else does."""

import contextlib
import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from flows.cli import main
from ptta_core.config import ConfigError, ModelRef, ScoreConfig
from ptta_core.models import aesthetic, motion, published, transnet
from ptta_core.models.weight_files import WeightsError
from ptta_core.ops import convert as ops


def state(kind: str) -> dict[str, torch.Tensor]:
    """Random weights of the real class, as its authors' file holds them."""
    torch.manual_seed(3)
    return {name: torch.randn(one.shape) if one.is_floating_point() else torch.zeros(one.shape, dtype=one.dtype)
            for name, one in published.MODELS[kind].wanted().items()}  # fmt: skip


def saved(tensors: object, path: Path) -> tuple[Path, str]:
    torch.save(tensors, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


class Touch:
    """Something that, unpickled, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ops.KINDS)
def test_a_published_file_becomes_the_same_tensors(kind: str, tmp_path: Path) -> None:
    path, sha256 = saved(state(kind), tmp_path / "weights.pth")
    made = ops.convert(kind, path, sha256)
    assert made["path"] == str(tmp_path / "weights.safetensors") and made["sha256"] == sha256 and not made["known_as"]
    tensors, wanted = load_file(made["path"]), state(kind)
    assert tensors.keys() == wanted.keys() and made["tensors"] == len(wanted)
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    with safe_open(made["path"], "pt") as file:
        assert file.metadata() == {"converted_from": f"{kind} sha256:{sha256}"}
    first = Path(made["path"]).read_bytes()
    assert ops.convert(kind, path, sha256.upper(), tmp_path / "b.safetensors")["path"].endswith("b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == first


def test_the_loaders_take_what_was_converted(tmp_path: Path) -> None:
    """RAFT and TransNetV2 whole, LAION's head on a small CLIP of the published width."""
    refs, raft = {}, state("raft")
    for kind in ops.KINDS:
        path, sha256 = saved(state(kind), tmp_path / f"{kind}.pth")
        refs[kind] = ModelRef(id=ops.convert(kind, path, sha256)["path"])
    flow = motion.make_flow(ScoreConfig(motion="raft", motion_model=refs["raft"]))
    assert all(torch.equal(one, raft[name]) for name, one in flow.model.state_dict().items())
    network = transnet.load(refs["transnetv2"])
    assert network(np.zeros((3, 27, 48, 3), np.uint8)).shape == (3, 2)
    looks = aesthetic.laion_v2(ModelRef(id=str(_clip(tmp_path / "clip"))), refs["laion-v2"])
    unit = np.eye(768, dtype=np.float32)[:2]
    head = state("laion-v2")
    for row, score in zip(torch.from_numpy(unit), looks.scores(unit)):
        for layer in (0, 2, 4, 6, 7):
            row = head[f"layers.{layer}.weight"] @ row + head[f"layers.{layer}.bias"]
        assert score == pytest.approx(row.item(), rel=1e-3, abs=1e-2)


def _clip(folder: Path) -> Path:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                              image_size=32, patch_size=16, projection_dim=768)  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def test_a_file_is_opened_only_when_its_hash_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sha256 = saved(state("laion-v2"), tmp_path / "head.pth")
    opened = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *words, **named: opened.append(named) or load(*words, **named))
    with pytest.raises(WeightsError, match=f"sha256 {sha256}, which is no known file.*not opened.*--sha256"):
        ops.convert("laion-v2", path)
    with pytest.raises(WeightsError, match=f"has sha256 {sha256}, not {'0' * 64}"):
        ops.convert("laion-v2", path, "0" * 64)
    assert not opened and not (tmp_path / "head.safetensors").exists()
    monkeypatch.setitem(published.MODELS["laion-v2"].known, sha256, "the file")
    assert ops.convert("laion-v2", path)["known_as"] == "the file"
    assert [named["weights_only"] for named in opened] == [True]


@pytest.mark.parametrize("whole", [True, False])
def test_a_pickle_that_would_run_code_is_refused(whole: bool, tmp_path: Path) -> None:
    """As a file of torch.save, and as a bare pickle: the canary's folder is never made."""
    canary, path = tmp_path / "canary", tmp_path / "weights.pth"
    hostile = state("laion-v2") | {"layers.9.weight": Touch(canary)}
    if whole:
        torch.save(hostile, path)
    else:
        path.write_bytes(pickle.dumps(Touch(canary), protocol=2))
    with pytest.raises(WeightsError, match=r"no PyTorch file of plain tensors, and nothing in it was run"):
        ops.convert("laion-v2", path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not canary.exists() and not (tmp_path / "weights.safetensors").exists()
    with contextlib.suppress(Exception):  # a careless reader runs it, whatever it says then
        torch.load(path, weights_only=False)
    assert canary.exists()


def test_what_is_not_the_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    right = state("laion-v2")
    cases = [
        ({f"module.{name}": one for name, one in right.items()}, r"10 tensors are missing .*'layers\.0\.b.*module\."),
        (right | {"layers.7.bias": torch.zeros(2)}, r"layers\.7\.bias is \[2\], not \[1\]"),
        (right | {"epoch": 7}, "'epoch': int, which is no plain tensor"),
        (list(right.values()), "holds a list, not tensors by name"),
    ]  # fmt: skip
    for content, said in cases:
        with pytest.raises(WeightsError, match=said):
            ops.convert("laion-v2", *saved(content, path))
    path.write_bytes(b"PK no zip after all")
    with pytest.raises(WeightsError, match="no PyTorch file"):
        ops.convert("laion-v2", path, hashlib.sha256(path.read_bytes()).hexdigest())
    assert not list(tmp_path.glob("*.safetensors"))


def test_bad_words_and_other_content_are_told(tmp_path: Path) -> None:
    path, sha256 = saved(state("laion-v2"), tmp_path / "head.pth")
    for words, said in [
        (("vgg", path), "choices: raft, laion-v2, transnetv2"), (("raft", tmp_path / "no.pth"), "no such file"),
        (("raft", path, "abc"), "not 64 hexadecimal"), (("raft", path, sha256, tmp_path / "a.bin"), "must be a"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            ops.convert(*words)
    (tmp_path / "head.safetensors").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="with other content"):
        ops.convert("laion-v2", path, sha256)
    assert (tmp_path / "head.safetensors").read_bytes() == b"mine"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(ops.KINDS) == set(published.MODELS)
    path, sha256 = saved(state("laion-v2"), tmp_path / "head.pth")
    assert main(["weights", "convert", "laion-v2", str(path)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("ptta: ") and "--sha256" in told.err and not told.out
    assert main(["weights", "convert", "laion-v2", str(path), "--sha256", sha256, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["field"] == "score.aesthetic_head" and Path(made["path"]).is_file() and made["parameters"] == 927969
    assert main(["weights", "convert", "laion-v2", str(path), "--sha256", sha256]) == 0  # once more changes nothing
    assert "score.aesthetic_head.id" in capsys.readouterr().out
