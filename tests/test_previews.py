"""Previews: what `generate` would make, nothing learned differently for them, their share of the time, and trouble."""

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_training import Killed, adapter, metrics, samples

from ptta_core import video
from ptta_core.config import BaseConfig, GenerateConfig, ModelRef, TrainConfig, Workers
from ptta_core.models import hunyuan, hydralora, tiny
from ptta_core.stages.generate import GenerateItem, VideoMaker
from ptta_core.training import dataset, loop, notice, passes, preview_here, previews

GENERATE = GenerateConfig(frames=5, height=32, width=48, steps=2)
SAMPLING = {name: getattr(GENERATE, name) for name in ("steps", "guidance", "shift", "frames", "height", "width")}
LABELS = {"male": 0.25, "object": 0.75}  # of every sample in test_training
PROMPTS = (("a girl runs", ""), ("a red ball", '{"male":1}'))
PLAN = previews.Plan(2, 1e9, PROMPTS, (3,), SAMPLING, GENERATE.fps, "tiny")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with the base in it, and the prompts embedded below `embedded`."""
    folder = tmp_path_factory.mktemp("previews")
    base = tiny.hunyuan(folder / f"tiny-hunyuan-0-v{tiny.TINY_VERSION}", 0)
    make = functools.partial(previews.PromptEmbedder, str(folder / "embedded"), str(base), None, "float32", "cpu")
    previews.embed(PLAN, make, folder / "embedded", Workers(), None)
    return folder


@pytest.fixture
def run(models: Path, tmp_path: Path) -> Callable[..., passes.Settings]:
    """A run of 3 steps an epoch and two epochs."""

    def make(name: str, plan: previews.Plan | None = PLAN, **config: Any) -> passes.Settings:
        folder = tmp_path / name
        dataset.pin(folder, samples())
        shutil.copytree(models / "embedded", folder, dirs_exist_ok=True)
        chosen = {"rank": 2, "branches": 2, "batch": 2, "learning_rate": 1e-2, **config}
        dumped = TrainConfig.model_validate(chosen).model_dump()
        base = str(models / f"tiny-hunyuan-0-v{tiny.TINY_VERSION}")
        return passes.Settings(str(folder), base, None, "float32", "cpu", 1, dumped, {"labels": list(LABELS)},
                               previews=plan)  # fmt: skip

    return make


def told(settings: passes.Settings) -> dict[int, dict[str, Any]]:
    return previews.told(Path(settings.run_folder))


def frames(path: Path) -> np.ndarray:
    return np.stack([frame.image for frame in video.read_frames(path)])


@pytest.mark.parametrize(("gate", "ema_decay"), [("token", 0.0), ("label", 0.9), ("sample", 0.0)])
def test_previews_change_nothing_and_are_what_generate_makes(
    run: Callable[..., passes.Settings], models: Path, tmp_path: Path, gate: str, ema_decay: float
) -> None:
    plain, shown = (run("shown" if plan else "plain", plan, gate=gate, ema_decay=ema_decay) for plan in (None, PLAN))
    loop.train_loop(plain)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    loop.train_loop(shown)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert adapter(shown) == adapter(plain)
    assert [line["loss"] for line in metrics(shown)] == [line["loss"] for line in metrics(plain)]
    made = told(shown)
    assert [(one["due"], one["step"], one["note"], len(one["videos"])) for one in made.values()] == [
        (0, 0, "", 2), (2, 2, "", 2), (4, 4, "", 2), (6, 6, "", 2)]  # fmt: skip
    base = BaseConfig(model=ModelRef(id="tiny:hunyuan", revision="0"), dtype="float32")
    maker = VideoMaker(GENERATE, base, str(models), "cpu", tuple(text for text, _ in PROMPTS))
    for due, path in ((0, ""), (6, str(Path(shown.run_folder) / loop.ADAPTER))):
        for place, (text, labels) in enumerate(PROMPTS):
            out = tmp_path / f"{due}-{place}.mp4"
            maker([GenerateItem("g", "adapter" if path else "base", path, path, text, 3, str(out), "", labels)])
            preview = made[due]["videos"][place]
            assert np.array_equal(frames(out), frames(Path(shown.run_folder) / preview["path"]))
            own = LABELS if not labels else {"male": 1.0, "object": 0.0}
            assert json.loads(preview["labels"] or "{}") == (own if gate == "label" else {})
    shas = [one["videos"][0]["video_sha"] for one in made.values()]
    assert len(set(shas)) == 4


def test_a_killed_run_does_not_make_its_previews_again(
    run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the first one show other weights than the first: taken up again too late, it is left out."""
    whole, broken = run("whole", None, checkpoint_every=1), run("broken", checkpoint_every=1)
    loop.train_loop(whole)
    monkeypatch.setattr(preview_here.Previews, "_cost", lambda self: 0.0 if self.trained_s > 2.5 * STEP_S else 1e99)
    real = loop._Training.step

    def step(self: Any, number: int, batch: dataset.Batch) -> dict[str, Any]:
        if number == killed:
            raise Killed
        return real(self, number, batch) | {"step_s": STEP_S}

    monkeypatch.setattr(loop._Training, "step", step)
    written: dict[Path, int] = {}
    for killed, made in ((3, [0, 2]), (5, [0, 2, 4]), (99, [0, 2, 4, 6])):
        with pytest.raises(Killed) if killed < 99 else contextlib.nullcontext():
            loop.train_loop(broken)
        assert list(told(broken)) == made
        there = (Path(broken.run_folder) / previews.FOLDER).glob("*.mp4")
        times = {path: path.stat().st_mtime_ns for path in there}
        assert len(times) == 2 * len(made) and written.items() <= times.items()
        written = times
    assert adapter(broken) == adapter(whole)
    assert told(broken)[0]["step"] == 0 and told(broken)[2]["step"] == 3  # both had to wait for their time


STEP_S = 10.0


def test_the_first_preview_is_left_out_when_its_weights_are_gone(
    run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = run("late", checkpoint_every=1)
    monkeypatch.setattr(preview_here.Previews, "_cost", lambda self: 1e99)
    real = loop._Training.step

    def step(self: Any, number: int, batch: dataset.Batch) -> dict[str, Any]:
        if number == 3:
            raise Killed
        return real(self, number, batch)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop._Training, "step", step)
        loop.train_loop(settings)
    loop.train_loop(settings)
    notes = {due: one["note"] for due, one in told(settings).items()}
    assert "goes on from step 3: these weights are gone" in notes[0]
    assert "step 6 is next" in notes[4] and "train.preview_share" in notes[6]


# ------------------------------------------------------------------------------------------------ their share


def simulated(share: float, every: int, steps: int, step_s: float, cost_s: float) -> tuple[list[Any], float, float]:
    """((due, step) of what was made, seconds spent, seconds trained) by the real rule on times that are given."""
    training = SimpleNamespace(
        world=SimpleNamespace(rank=0, size=1, device="cpu"), sharded=False, folder=Path("/nonexistent"), parameters=[],
        config=SimpleNamespace(batch=4), index=[SimpleNamespace(bucket="5x32x48")],
    )  # fmt: skip
    one = preview_here.Previews(training, dataclasses.replace(PLAN, every=every, share=share), steps)
    one.kept, made, left_out = [], [], []
    one._write_off = lambda due, step, note: left_out.extend(due) or one.known.update(due) or preview_here.NOTHING  # type: ignore
    for step in range(1, steps + 1):
        one.took({"step_s": step_s, "forward_s": step_s / 3})
        while (due := one._choose(step)) != preview_here.NOTHING:
            made.append((due, step))
            one.known.add(due)
            one.cost_s = cost_s
            one.spent_s += cost_s
            if len(made) > 1:
                assert one.spent_s <= share * one.trained_s
    assert sorted([due for due, _ in made] + left_out) == one.plan.due(steps, steps)
    return made, one.spent_s, one.trained_s


def test_previews_take_their_share_of_the_time_and_no_more() -> None:
    made, spent, trained = simulated(0.05, 50, 1000, 5.0, 20.0)  # 20 s every 250 s would be 8 %
    assert made[0][0] == 0 and spent <= 0.05 * trained and len(made) == 12
    assert all(step >= due for due, step in made) and [due for due, _ in made] == sorted({due for due, _ in made})
    made, spent, trained = simulated(0.05, 50, 1000, 5.0, 2.0)  # cheap ones come when they are due
    assert [due for due, step in made if step > max(due, 10)] == [] and len(made) == 21
    made, spent, _ = simulated(0.05, 50, 100, 1.0, 600.0)  # never affordable again after the first, which was a guess
    assert [due for due, _ in made] == [0]


def test_a_run_too_short_for_previews_says_so(run: Callable[..., passes.Settings]) -> None:
    settings = run("short", dataclasses.replace(PLAN, share=1e-9))
    loop.train_loop(settings)
    found = told(settings)
    assert list(found) == [0, 2, 4, 6] and not any(one["videos"] for one in found.values())
    assert "step 4 is next" in found[2]["note"] and "of the training time is" in found[6]["note"]
    assert "of the training time is" in found[0]["note"]


def test_the_first_ones_cost_is_guessed_from_trainings_passes(run: Callable[..., passes.Settings]) -> None:
    """Within a factor that a guess may have: it only decides when the first preview comes."""
    settings = run("guessed")
    guessed: list[float] = []
    real = preview_here.Previews._make

    def make(self: preview_here.Previews, due: int, step: int) -> None:
        guessed.append(self._cost())
        real(self, due, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview_here.Previews, "_make", make)
        loop.train_loop(settings)
    first, second = (one["seconds"] for one in list(told(settings).values())[:2])
    assert guessed[1] == first and guessed[2] == second
    assert second / 20 < guessed[0] < second * 20


# ------------------------------------------------------------------------------------------------ trouble


def test_a_preview_that_fails_ends_no_training_and_two_end_previews(
    run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, settings = run("plain", None), run("failing")
    loop.train_loop(plain)

    def full(*args: Any, **more: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(video, "write_mp4", full)
    loop.train_loop(settings)
    assert adapter(settings) == adapter(plain)
    notes = [one["note"] for one in told(settings).values()]
    assert notes[0] == notes[1] == "OSError: No space left on device"
    assert notes[2] == notes[3] == "previews have failed twice; this run makes no more"


def test_workers_that_die_in_a_preview_twice_go_on_without(
    run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, settings = run("plain", None), run("deadly", checkpoint_every=1)
    loop.train_loop(plain)

    def die(*args: Any, **more: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(hunyuan.Generator, "latents", die)
        for _ in range(2):
            with pytest.raises(Killed):
                loop.train_loop(settings)
    loop.train_loop(settings)
    assert adapter(settings) == adapter(plain)
    notes = {due: one["note"] for due, one in told(settings).items()}
    assert "ended twice" in notes[2] and "makes no more" in notes[6] and not any(
        one["videos"] for one in told(settings).values())  # fmt: skip


def test_a_run_that_is_told_to_end_leaves_the_preview_in_the_making_for_later(
    run: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, settings = run("plain", None), run("ended")
    loop.train_loop(plain)
    real = hunyuan.Generator.latents

    def told_meanwhile(self: hunyuan.Generator, *args: Any, **more: Any) -> torch.Tensor:
        (Path(settings.run_folder) / notice.STOP).write_bytes(b"")
        return real(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(hunyuan.Generator, "latents", told_meanwhile)
        loop.train_loop(settings)
    assert (Path(settings.run_folder) / notice.STOPPED).read_text() == "2\n" and not told(settings)
    notice.begin(Path(settings.run_folder), "")
    loop.train_loop(settings)
    assert adapter(settings) == adapter(plain)
    assert {due: (one["step"], len(one["videos"])) for due, one in told(settings).items()} == {
        0: (2, 0), 2: (3, 2), 4: (4, 2), 6: (6, 2)}  # fmt: skip


def test_prompts_are_embedded_once_and_a_bad_one_is_named(models: Path, tmp_path: Path) -> None:
    made: list[str] = []
    base = str(models / f"tiny-hunyuan-0-v{tiny.TINY_VERSION}")

    class Watched(previews.PromptEmbedder):
        def __call__(self, prompts: list[str]) -> list[str]:
            made.extend(prompts)
            if "bad" in prompts:
                raise ValueError("no such words")
            return super().__call__(prompts)

    make = functools.partial(Watched, str(tmp_path), base, None, "float32", "cpu")
    for _ in range(2):
        previews.embed(PLAN, make, tmp_path, Workers(), None)
    assert made == [text for text, _ in PROMPTS]
    kept = previews.embedded(tmp_path, PLAN)
    encoder = hunyuan.TextEncoder(base, None, "float32")
    for (text, _), again in zip(PROMPTS, encoder([text for text, _ in PROMPTS])):
        assert torch.equal(kept[text].text, again.text) and torch.equal(kept[text].pooled, again.pooled)
    with pytest.raises(previews.PromptError, match="'bad' cannot be embedded"):
        previews.embed(dataclasses.replace(PLAN, prompts=(("bad", ""),)), make, tmp_path, Workers(), None)


def test_a_file_left_for_another_worker_is_the_adapter_of_that_step(run: Callable[..., passes.Settings]) -> None:
    apart = dataclasses.replace(PLAN, apart=True)
    plain, settings = run("plain", None, ema_decay=0.5), run("apart", apart, ema_decay=0.5)
    loop.train_loop(plain)
    loop.train_loop(settings)
    assert adapter(settings) == adapter(plain)
    left = dict(previews.waiting(Path(settings.run_folder)))
    assert list(left) == [0, 2, 4, 6]
    from safetensors.torch import load_file

    last, first = load_file(Path(settings.run_folder) / loop.ADAPTER), load_file(left[0])
    assert all(torch.equal(value, last[name]) for name, value in load_file(left[6]).items())
    assert not any(value.any() for name, value in first.items() if name.endswith("lora_B"))
    assert hydralora.read_config(left[0])["metadata"]["labels"] == list(LABELS)
