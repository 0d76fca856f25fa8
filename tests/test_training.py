"""Training in this process on a tiny HunyuanVideo: resume to the bit, learning, batches, checkpoints, errors."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ptta_core.config import TrainConfig
from ptta_core.models import hunyuan, tiny
from ptta_core.training import checkpoint, dataset, held_out, launch, loop, objective, passes, stops, workers

SIZES = {"5x32x32": (2, 4, 4), "9x32x48": (3, 4, 6)}  # bucket -> latent T, h, w


def samples(n_first: int = 3, n_second: int = 2) -> Iterator[tuple[str, str, str, bytes]]:
    """Random latents in two buckets."""
    buckets = ["5x32x32"] * n_first + ["9x32x48"] * n_second
    for number, bucket in enumerate(buckets):
        generator = torch.Generator().manual_seed(number)
        tensors = {
            "latents": torch.randn(16, *SIZES[bucket], generator=generator),
            "text": torch.randn(3 + number, tiny.TEXT_WIDTH, generator=generator),
            "pooled": torch.randn(tiny.POOLED_WIDTH, generator=generator),
        }
        yield f"sample{number}", bucket, json.dumps({"male": 0.25, "object": 0.75}), hunyuan.pack(tensors)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.hunyuan(tmp_path_factory.mktemp("training") / "base", 0))


@pytest.fixture
def settings(base: str, tmp_path: Path) -> Callable[..., passes.Settings]:
    """A run of 5 samples in batches of 2: 3 steps an epoch, one of them with a single sample."""

    def make(
        name: str = "run", n_first: int = 3, n_second: int = 2, apart: tuple[str, ...] = (), **config: Any
    ) -> passes.Settings:
        folder = tmp_path / name
        dataset.pin(folder, samples(n_first, n_second), apart)
        chosen = {"rank": 2, "branches": 2, "batch": 2, "learning_rate": 1e-2, "warmup_steps": 2, **config}
        dumped = TrainConfig.model_validate(chosen).model_dump()
        return passes.Settings(str(folder), base, None, "float32", "cpu", 1, dumped, {"labels": ["male", "object"]})

    return make


def metrics(run: passes.Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run.run_folder) / loop.METRICS).read_text().splitlines()]


def adapter(run: passes.Settings) -> bytes:
    return (Path(run.run_folder) / loop.ADAPTER).read_bytes()


class Killed(BaseException):
    """Stands for a kill in the middle of a step."""


def kill_in_step(monkeypatch: pytest.MonkeyPatch, run: passes.Settings, step: int) -> None:
    """Train until step `step` (from 1) begins, then die."""
    real = loop._Training.backward
    seen: list[int] = []

    def backward(self: Any, batch: dataset.Batch) -> float:
        seen.append(batch.first)
        if len(seen) == step:
            raise Killed
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "backward", backward)
        with pytest.raises(Killed):
            loop.train_loop(run)
    assert not (Path(run.run_folder) / loop.ADAPTER).exists()


# ---------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    ("killed_in", "every", "resumed_from", "ema_decay"),
    [(5, 2, 4, 0.0), (4, 3, 3, 0.9), (4, 50, 0, 0.9)],
    ids=["inside an epoch", "at an epoch's boundary", "before any checkpoint"],
)
def test_a_killed_run_ends_as_if_never_killed(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch, killed_in: int, every: int,
    resumed_from: int, ema_decay: float,
) -> None:  # fmt: skip
    whole = settings("whole", checkpoint_every=50, ema_decay=ema_decay)
    loop.train_loop(whole)
    broken = settings("broken", checkpoint_every=every, ema_decay=ema_decay)
    kill_in_step(monkeypatch, broken, killed_in)
    folder = Path(broken.run_folder) / loop.CHECKPOINTS
    assert checkpoint.step_of(checkpoint.latest(folder)) == resumed_from
    with open(Path(broken.run_folder) / loop.METRICS, "a") as file:
        file.write('{"step": 5, "lo')  # as a kill may leave it
    done: list[int] = []
    real = loop._Training.step

    def counted(self: Any, step: int, batch: dataset.Batch) -> dict[str, Any]:
        done.append(step)
        return real(self, step, batch)

    monkeypatch.setattr(loop._Training, "step", counted)
    loop.train_loop(broken)
    assert done == list(range(resumed_from, 6))
    assert adapter(broken) == adapter(whole)
    assert [line["step"] for line in metrics(broken)] == [1, 2, 3, 4, 5, 6]
    diagnostics = ("gate_mean", "gate_entropy", "gate_evenness", "branch_cosine", "dead_branches")
    for key in ("loss", "grad_norm", "lr", *diagnostics):
        assert [line[key] for line in metrics(broken)] == [line[key] for line in metrics(whole)]
    assert metrics(whole)[0]["lr"] == pytest.approx(5e-3)
    assert metrics(whole)[1]["lr"] == metrics(whole)[5]["lr"] == pytest.approx(1e-2)


def test_a_finished_run_returns_at_once(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settings(epochs=1)
    loop.train_loop(run)
    before = adapter(run)
    monkeypatch.setattr(passes, "load_transformer", lambda *args: pytest.fail("a finished run loaded its base"))
    loop.train_loop(run)
    launch.fit(run, workers=launch.TrainWorkers())  # not even Ray
    assert adapter(run) == before and len(metrics(run)) == 3


def test_killed_between_the_last_checkpoint_and_the_adapter(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = settings("whole", epochs=1), settings("broken", epochs=1)
    loop.train_loop(whole)

    def die(self: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop._Training, "finish", die)
        loop.train_loop(broken)
    loop.train_loop(broken)
    assert adapter(broken) == adapter(whole) and len(metrics(broken)) == 3


def test_only_the_newest_two_checkpoints_stay_and_a_torn_one_is_not_seen(
    settings: Callable[..., passes.Settings],
) -> None:
    run = settings(checkpoint_every=1)
    folder = Path(run.run_folder) / loop.CHECKPOINTS
    (folder / ".step-00000001.part").mkdir(parents=True)
    assert checkpoint.latest(folder) is None
    loop.train_loop(run)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000005", "step-00000006"]


def test_a_checkpoint_of_another_adapter_is_refused(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settings(checkpoint_every=1)
    kill_in_step(monkeypatch, run, 2)
    parameter = torch.nn.Parameter(torch.zeros(3))
    path = checkpoint.latest(Path(run.run_folder) / loop.CHECKPOINTS)
    assert path
    with pytest.raises(checkpoint.CheckpointError, match="other adapter parameters"):
        checkpoint.load_optimizer(path, torch.optim.AdamW([parameter]))


# ------------------------------------------------------------------------------------------------ the learning


@pytest.mark.parametrize("gate", ["token", "label"])
def test_the_loss_falls_when_one_sample_is_learned_by_heart(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    def same_draw(shape: torch.Size, seed: int, sample_index: int, shift: float) -> tuple[torch.Tensor, float]:
        return objective.draw(shape, seed, 0, shift)

    monkeypatch.setattr(passes, "draw", same_draw)
    run = settings(n_first=1, n_second=0, batch=1, epochs=25, warmup_steps=0, rank=8, gate=gate)
    loop.train_loop(run)
    losses = [line["loss"] for line in metrics(run)]
    assert min(losses[-3:]) < 0.9 * losses[0]
    assert all(sum(line["gate_mean"]) == pytest.approx(1, abs=1e-4) for line in metrics(run))


def test_the_gradient_of_a_batch_is_that_of_its_mean_for_any_split(settings: Callable[..., passes.Settings]) -> None:
    """Two workers' gradients, one of them without a sample in the small batch, add up to the single worker's."""
    run = settings(checkpointing=False)
    trainings = [loop._Training(run, workers.World(rank, size)) for rank, size in ((0, 1), (0, 2), (1, 2))]
    batches = dataset.epoch_batches(trainings[0].index, 2, 0, 0)
    for batch in (min(batches, key=lambda one: len(one.places)), max(batches, key=lambda one: len(one.places))):
        totals = [training.backward(batch) for training in trainings]
        torch.testing.assert_close(totals[1] + totals[2], totals[0], rtol=1e-5, atol=1e-6)
        for alone, first, second in zip(*(training.parameters for training in trainings)):
            parts = [one.grad for one in (first, second) if one.grad is not None]
            if alone.grad is not None:
                torch.testing.assert_close(sum(parts, torch.zeros_like(alone)), alone.grad, rtol=1e-4, atol=1e-6)
        for training in trainings:
            training.optimizer.zero_grad()


def test_activation_checkpointing_changes_no_gradient(settings: Callable[..., passes.Settings]) -> None:
    losses = []
    for checkpointing in (False, True):
        run = settings(f"run{checkpointing}", epochs=1, checkpointing=checkpointing)
        loop.train_loop(run)
        losses.append([line["grad_norm"] for line in metrics(run)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_target_is_noise_minus_clean_and_time_goes_in_thousandths() -> None:
    """A model that knows the answer has no loss; the noisy input lies on the line from clean to noise."""
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn(2, 16, 1, 2, 2, generator=generator)
    sample = {"latents": clean, "text": torch.zeros(4, 8), "pooled": torch.zeros(6)}

    def oracle(**inputs: Any) -> tuple[torch.Tensor]:
        torch.testing.assert_close(inputs["hidden_states"][0], 0.75 * clean + 0.25 * noise)
        assert inputs["timestep"].tolist() == [250.0] and inputs["guidance"].tolist() == [1000.0]
        return ((noise - clean)[None],)

    assert float(objective.velocity_loss(oracle, sample, noise, 0.25, 1.0, torch.float32, "cpu")) == 0.0


def test_draws_depend_on_seed_and_sample_alone_and_lean_towards_noise() -> None:
    shape = torch.Size([2, 2])
    (noise, t), (again, t_again) = objective.draw(shape, 1, 5, 7.0), objective.draw(shape, 1, 5, 7.0)
    assert torch.equal(noise, again) and t == t_again
    assert objective.draw(shape, 1, 6, 7.0)[1] != t and objective.draw(shape, 2, 5, 7.0)[1] != t
    times = torch.tensor([objective.draw(shape, 0, index, 1.0)[1] for index in range(500)])
    assert abs(float(times.median()) - 0.5) < 0.06  # of a logit-normal (0, 1)
    assert abs(float(torch.logit(times).std()) - 1.0) < 0.1
    assert objective.shifted(0.5, 7.0) == pytest.approx(7 / 8)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_samples(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = passes.velocity_loss
    monkeypatch.setattr(passes, "velocity_loss", lambda *args: real(*args) * float("nan"))
    run = settings()
    with pytest.raises(stops.NotFinite, match=r"step 1: loss nan.*sample\d"):
        loop.train_loop(run)
    assert not (Path(run.run_folder) / loop.ADAPTER).exists() and metrics(run) == []


def test_a_label_gates_adapter_says_what_the_clips_showed_on_average(settings: Callable[..., passes.Settings]) -> None:
    from ptta_core.models import hydralora

    run = settings(gate="label", epochs=1)
    loop.train_loop(run)
    told = hydralora.read_config(Path(run.run_folder) / loop.ADAPTER)["metadata"]
    assert told.pop("metrics")["steps"] == len(metrics(run))
    assert told == {"labels": ["male", "object"], "label_mean": [0.25, 0.75]}
    index = [dataset.Sample("a", "b", '{"male": 3, "object": 1}'), dataset.Sample("c", "b", '{"object": 1}'),
             dataset.Sample("d", "b")]  # fmt: skip
    assert dataset.label_mean(index, ["male", "object"]) == [0.375, 0.625]
    assert dataset.label_mean(index, ["female"]) == []


def test_a_label_gate_needs_a_label_a_branch(settings: Callable[..., passes.Settings]) -> None:
    run = settings(gate="label")
    with pytest.raises(dataset.DatasetError, match="2 branches, 1 labels"):
        loop.train_loop(dataclasses.replace(run, metadata={"labels": ["male"]}))
    with pytest.raises(dataset.DatasetError, match="none of the 5 samples"):
        loop.train_loop(dataclasses.replace(run, metadata={"labels": ["female", "background"]}))


def test_training_goes_on_from_an_adapter(settings: Callable[..., passes.Settings]) -> None:
    first, second = settings("first"), settings("second", learning_rate=1e-30, ema_decay=0.5)
    loop.train_loop(first)
    (Path(second.run_folder) / loop.INIT).write_bytes(adapter(first))
    loop.train_loop(second)
    from safetensors.torch import load_file

    one, two = (load_file(Path(run.run_folder) / loop.ADAPTER) for run in (first, second))
    assert one.keys() == two.keys() and all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    other = settings("other", rank=3)
    (Path(other.run_folder) / loop.INIT).write_bytes(adapter(first))
    with pytest.raises(checkpoint.CheckpointError, match=r"train.init_from: .*rank"):
        loop.train_loop(other)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_supervised_routers_learn_the_labels(settings: Callable[..., passes.Settings], checkpointing: bool) -> None:
    """Every clip is a quarter the first label: gates go there from a half, but for the third of the layers on text."""
    rest = {"epochs": 8, "warmup_steps": 0, "checkpointing": checkpointing}
    gates = []
    for name, weight in (("free", 0.0), ("led", 1.0)):
        run = settings(name, router_label_weight=weight, **rest)
        loop.train_loop(run)
        gates.append(metrics(run)[-1]["gate_mean"][0])
    assert abs(gates[1] - 1 / 3) < 0.04 < 0.07 < abs(gates[0] - 1 / 3)


# ------------------------------------------------------------------------------------ the average, and held out


def test_the_average_follows_the_weights_and_is_what_is_exported(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    plain, averaged = settings("plain", checkpoint_every=1), settings("averaged", ema_decay=0.5)
    seen: list[list[torch.Tensor]] = []
    real = loop.Average.update

    def watched(self: loop.Average, step: int) -> None:
        if not seen:
            seen.append([shadow.clone() for shadow in self.shadow])
        seen.append([one.detach().clone() for one in self.parameters])
        real(self, step)

    monkeypatch.setattr(loop.Average, "update", watched)
    loop.train_loop(plain)
    loop.train_loop(averaged)
    assert [line["loss"] for line in metrics(plain)] == [line["loss"] for line in metrics(averaged)]
    expected = [one.double() for one in seen[0]]
    for step, weights in enumerate(seen[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * old + (1 - decay) * new.double() for old, new in zip(expected, weights)]
    last, mean = (load_file(Path(run.run_folder) / loop.ADAPTER) for run in (plain, averaged))
    for name, wanted, weights in zip(sorted(mean), expected, seen[-1]):
        torch.testing.assert_close(mean[name].double(), wanted, rtol=1e-5, atol=1e-7)
        assert torch.equal(last[name], weights) and not torch.equal(mean[name], weights)


def test_held_out_samples_are_measured_and_never_learned(
    settings: Callable[..., passes.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = ("sample1", "sample4")
    run = settings(apart=apart, checkpoint_every=1)
    learned: set[str] = set()
    real = loop._Training.backward

    def backward(self: Any, batch: dataset.Batch) -> torch.Tensor:
        learned.update(self.index[place].latent_id for place in batch.places)
        return real(self, batch)

    monkeypatch.setattr(loop._Training, "backward", backward)
    loop.train_loop(run)
    assert learned == {"sample0", "sample2", "sample3"}
    folder = Path(run.run_folder)
    assert loop.total_steps(dataset.read_index(folder), TrainConfig(**run.config)) == 4
    lines = [json.loads(line) for line in (folder / loop.HELD_OUT).read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4] and {line["samples"] for line in lines} == {2}
    times = lines[0]["t"]
    assert times == sorted(times) and times == held_out.times(7.0) and len(times) == 4
    shares = [sum(objective.draw(torch.Size([1]), 0, index, 7.0)[1] < t for index in range(2000)) / 2000 for t in times]
    assert shares == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8], abs=0.04)  # the middle of each quarter
    assert dataclasses.asdict(dataset.read_index(folder)[1])["held_out"] is True


def test_the_held_out_loss_is_the_mean_error_at_fixed_noise_for_any_split(
    settings: Callable[..., passes.Settings],
) -> None:
    run = settings(apart=("sample0", "sample1", "sample4"))
    alone, *two = (loop._Training(run, workers.World(rank, size)) for rank, size in ((0, 1), (0, 2), (1, 2)))
    sums = alone.held_out_losses()
    torch.testing.assert_close(two[0].held_out_losses() + two[1].held_out_losses(), sums)
    by_hand = torch.zeros(())
    for one in alone.held_out:
        sample = dataset.read_sample(run.run_folder, one)
        noise = held_out.noise(sample["latents"].shape, 0, one, 2)
        by_hand += objective.velocity_loss(alone.model, sample, noise, held_out.times(7.0)[2], 1.0, torch.float32,
                                           "cpu").detach()  # fmt: skip
    assert float(sums[2]) == pytest.approx(float(by_hand))
    assert len(set(sums.tolist())) == 4 and alone.measure(1)["loss"] == pytest.approx((sums / 3).tolist())


def test_the_best_the_newest_and_every_nth_checkpoint_stay(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    losses = [9.0, 5.0, 7.0, 3.0, 3.0, 4.0, 8.0, 6.0, 7.0]
    for step, loss in enumerate(losses, start=1):
        parameter.sum().backward()
        optimizer.step()
        parts = {"adapter": {"a": parameter}, "optimizer": checkpoint.moments(optimizer)}
        checkpoint.save(tmp_path, step, parts, loss, keep_every=3)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["3", "4", "6", "8", "9"]
    best = checkpoint.best(tmp_path)
    assert best and checkpoint.step_of(best) == 4
    with pytest.raises(checkpoint.CheckpointError, match="no average"):
        checkpoint.load_average(best)
