"""The label gate through the river: words of captions become labels, labels gates, and prompts are read alike."""

import json

import pytest
from demo import go, open_demo

from ptta_core import memo, stages
from ptta_core.labels import labels_of
from ptta_core.models import hydralora
from ptta_core.training import launch, loop

COLOURS = ["blue", "green", "white"]  # words of measured captions: labels that are known without a language model
PROMPTS = ["White clouds over green hills.", "A ball bounces."]


def test_labels_from_words_to_branches_and_at_inference(workspace, videos, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.jsonl"
    told = [{"prompt": "By hand.", "labels": {"blue": 3, "green": 1}}, *({"prompt": one} for one in PROMPTS)]
    prompts.write_text("\n".join(json.dumps(one) for one in told), encoding="utf-8")
    view = open_demo(workspace, videos, **{
        "caption.labels": COLOURS, "train.gate": "label", "train.branches": len(COLOURS), "train.epochs": 1,
        "generate.prompts": str(prompts), "generate.steps": 1})  # fmt: skip
    go(view, (*stages.CURATE, "encode"))
    captions = {row["caption_id"]: row for row in view.rows("caption").to_pylist()}
    assert all(row["labels"] == labels_of(row["text"], view.recipe.caption) for row in captions.values())
    assert any(row["labels"] for row in captions.values())
    latents = view.rows("encode").to_pylist()
    assert all(row["labels"] == captions[row["caption_id"]]["labels"] for row in latents)

    monkeypatch.setattr(launch, "fit", lambda settings, *_: loop.train_loop(settings))  # what every Ray worker runs
    for name in ("train", "generate"):
        memo.run(view.stage(name), view)
    (adapter,) = view.rows("train").to_pylist()
    known = hydralora.read_config(str(view.home / adapter["path"]))["metadata"]
    shares = [[json.loads(row["labels"]).get(label, 0.0) for label in COLOURS] for row in latents if row["labels"]]
    mean = [sum(column) / len(shares) for column in zip(*[[one / sum(row) for one in row] for row in shares])]
    assert known["labels"] == COLOURS and known["label_mean"] == pytest.approx(mean, abs=1e-6)

    made = {row["prompt"]: json.loads(row["labels"] or "{}") for row in view.rows("generate").to_pylist()
            if row["variant"] == "adapter"}  # fmt: skip
    assert made["By hand."] == {"blue": 0.75, "green": 0.25, "white": 0.0}  # the prompt file's word
    read = json.loads(labels_of(PROMPTS[0], view.recipe.caption))
    assert made[PROMPTS[0]] == pytest.approx({label: read.get(label, 0.0) for label in COLOURS}, abs=1e-3)
    assert read.keys() == {"white", "green"} and read["white"] > read["green"]  # named first
    assert made[PROMPTS[1]] == pytest.approx(dict(zip(COLOURS, mean)), abs=1e-6)  # no such word: the training mean
