"""Captions: what is measured as grammatical words, and a real (tiny, random) Qwen2.5-VL against its own generate."""

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from ptta_core import windows
from ptta_core.buckets import TooSmall
from ptta_core.config import CaptionConfig, EncodeConfig, ModelRef
from ptta_core.fleet import Failed
from ptta_core.ids import digest
from ptta_core.models import captioner, tiny_vlm
from ptta_core.models.captioner import CaptionItem, Facts, describe_facts
from ptta_core.models.dialogue import Chat
from ptta_core.models.frames import EmptyClip, Nearest
from ptta_core.stages.caption import CaptionWriter

FACTS = Facts(
    motion_px=12.0, object_px=8.0, static_share=0.0, timing="twos", pan_x_px=-11.5, pan_y_px=0.2, zoom=1.0,
    brightness=0.7, colourfulness=65.0, palette="blue, white, orange",
)  # fmt: skip


def item(clip_id="c1", facts=FACTS, seconds=3.2):
    return CaptionItem(clip_id, "/nowhere.mp4", 0, 100, "1/24", 0, "", 1.0, 1.0 + seconds, facts)


def test_a_measured_caption_says_what_was_measured():
    assert describe_facts(FACTS, 3.2) == (
        "A bright, colourful shot of 3.2 seconds in blue, white and orange. "
        "The movement is strong, drawn on twos. The camera pans right."
    )


@pytest.mark.parametrize(("change", "expected"), [
    ({"pan_x_px": 40.0}, "The camera pans left quickly."),
    ({"pan_x_px": 0.0, "pan_y_px": 5.0}, "The camera tilts up slowly."),
    ({"pan_x_px": 0.0, "pan_y_px": -9.0}, "The camera tilts down."),
    ({"pan_x_px": -9.0, "pan_y_px": -9.0}, "The camera pans right and tilts down."),
    ({"pan_x_px": 0.0, "zoom": 1.1}, "The camera zooms in."),
    ({"zoom": 0.9}, "The camera pans right and zooms out."),
    ({"pan_x_px": 0.0, "pan_y_px": 0.0}, "The camera holds still."),
    ({"motion_px": 30.0}, "The movement is very strong, drawn on twos."),
    ({"object_px": 0.3}, "Nothing but the camera moves. The camera pans right."),
    ({"timing": "ones"}, "The movement is strong. The camera"),
    ({"motion_px": 3.0, "timing": "mixed", "static_share": 0.5}, "The movement is gentle, with pauses."),
    ({"motion_px": 0.0, "timing": "still", "static_share": 1.0, "pan_x_px": 0.0}, "Nothing moves."),
    ({"palette": "gray"}, "A bright, colourful shot of 3.2 seconds, mostly gray."),
    ({"palette": "gray, red"}, "in gray and red."),
    ({"brightness": 0.5, "colourfulness": 40.0}, "A shot of 3.2 seconds"),
    ({"brightness": 0.1, "colourfulness": 5.0}, "A dark, muted shot"),
])  # fmt: skip
def test_words_follow_the_facts(change, expected):
    text = describe_facts(replace(FACTS, **change), 3.2)
    assert expected in text
    assert re.fullmatch(r"([A-Z][^.]*(\d\.\d[^.]*)?\. ?)+", text), text
    assert "  " not in text


def test_seconds_are_counted():
    assert " of 1 second in " in describe_facts(FACTS, 1.04)
    assert " of 2 seconds in " in describe_facts(FACTS, 2.0)


def test_caption_rows_are_named_by_what_they_say():
    writer = CaptionWriter(CaptionConfig())
    first, second = writer([item("c1"), item("c2", replace(FACTS, pan_x_px=40.0))])
    assert (first.clip_id, second.clip_id) == ("c1", "c2")
    assert "right" in first.text and "left" in second.text
    assert first.labels == "" and first.captioner == "measured"
    assert first.caption_id == digest("c1", ["0", "25/6"], first.text, "")  # the whole of 100 ticks of 1/24 s


def window_of(rule, seconds, place=0):
    """A window of 49 frames of a clip so long."""
    return windows.of_length(Fraction(seconds), EncodeConfig(window=rule, frames=49)).windows[place]


def test_a_window_is_described_as_the_model_sees_it():
    writer = CaptionWriter(CaptionConfig())
    clip = item(seconds=10.0)
    whole, chunk, lapse = writer([clip, replace(clip, window=window_of("chunks", 10, 2), item_id="c1@4.083333"),
                                  replace(clip, window=window_of("uniform", 10))])  # fmt: skip
    assert (whole.start_s, whole.end_s) == (1.0, pytest.approx(1.0 + 100 / 24))
    assert (chunk.start_s, chunk.end_s) == pytest.approx((1.0 + 98 / 24, 1.0 + 147 / 24))
    assert "shot of 10 seconds" in whole.text and "shot of 2 seconds" in chunk.text
    assert chunk.text.partition("seconds")[2] == whole.text.partition("seconds")[2]  # measured on the whole clip
    assert lapse.text == ("A bright, colourful, sped-up shot of 2 seconds in blue, white and orange. "
                          "The movement is very strong. The camera pans right quickly.")  # fmt: skip
    assert len({one.caption_id for one in (whole, chunk, lapse)}) == 3


def test_facts_of_a_time_lapse():
    fast = replace(FACTS, zoom=1.1).at_speed(2.0)
    assert (fast.motion_px, fast.object_px, fast.pan_x_px, fast.pan_y_px) == (24.0, 16.0, -23.0, 0.4)
    assert fast.zoom == pytest.approx(1.21) and fast.timing == "mixed" and fast.palette == FACTS.palette
    assert FACTS.at_speed(1.0) is FACTS
    assert "sped-up" not in describe_facts(FACTS, 2.0, 1.1)  # nobody would call it that


def test_a_clip_without_a_window_has_failed_and_no_captioner_is_asked():
    writer = CaptionWriter(CaptionConfig())
    asked = []
    writer.captioner = lambda items: asked.extend(items) or [captioner.Words("a text") for _ in items]
    small = replace(item("small"), unfit=TooSmall("9 x 9 px: both sides must be at least 16 px"))
    first, failed, last = writer([item("c1"), small, item("c2")])
    assert [one.clip_id for one in asked] == ["c1", "c2"] == [first.clip_id, last.clip_id]
    assert failed == Failed("too_small", "no window to learn from: 9 x 9 px: both sides must be at least 16 px")


def test_a_language_model_is_shown_the_window_and_nothing_else(tmp_path):
    from ptta_core import video

    path = tmp_path / "clip.mp4"
    video.write_mp4(path, [np.full((64, 96, 3), 20 + 2 * index, np.uint8) for index in range(100)], 24.0, metadata={})
    times = [frame.pts for frame in video.read_frames(str(path), stream=0, width=32, pixel="gray")]
    base = Fraction(1, 24) / (times[1] - times[0])
    end = times[-1] + times[1] - times[0]
    clip = CaptionItem("c", str(path), times[0], end, str(base), 0, "", 0.0, 100 / 24, FACTS, 96, 64)

    def shown(window, count):
        frames = captioner.sample_frames(replace(clip, window=window), count)
        return [round((frame.mean() - 20) / 2) for frame in frames]

    def near(found, expected):
        return len(found) == len(expected) and max(abs(a - b) for a, b in zip(found, expected)) <= 1  # of the codec

    config = EncodeConfig(window="chunks", frames=33)
    assert near(shown(None, 4), [12, 37, 62, 87])
    for place, window in enumerate(windows.of_length(Fraction(100, 24), config).windows):
        assert near(shown(window, 3), [33 * place + 5, 33 * place + 16, 33 * place + 27])
    one = windows.Window(Fraction(50, 24), 1, Fraction(24))
    assert near(shown(one, 8), [50])  # one picture, however many are asked for


def test_nearest_frames():
    class Frame:
        def __init__(self, index):
            self.index, self.pts, self.image = index, 100 + 10 * index, np.full((2, 2, 3), index, np.uint8)

    def picked(frames, shares):
        nearest = Nearest(100, 200, shares)
        for frame in frames:
            nearest.offer(frame)
        return [[int(image[0, 0, 0]) for image in images] for images in (nearest.images(), nearest.distinct())]

    assert picked([Frame(index) for index in range(10)], (0.1, 0.5, 0.9)) == [[1, 5, 9], [1, 5, 9]]
    assert picked([Frame(3)], (0.1, 0.5, 0.9)) == [[3, 3, 3], [3]]
    with pytest.raises(EmptyClip, match="no frames"):
        picked([], (0.5,))


def test_transformers_needs_a_model():
    with pytest.raises(ValueError, match=r"caption\.model"):
        captioner.make_captioner(CaptionConfig.model_construct(captioner="transformers", model=None))


# ------------------------------------------------------------------------------------------ video-language model


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tiny_vlm.vlm(tmp_path_factory.mktemp("models") / "vlm", 0)
    config = CaptionConfig(captioner="transformers", model=ModelRef(id=str(folder)), frames=3, max_new_tokens=10)
    return captioner.make_captioner(config)


@pytest.fixture(scope="module")
def clips():
    """Clips of 3, 1 and 2 frames: prompts of different lengths, so a batch needs padding."""
    random = np.random.default_rng(0)
    return [[random.integers(0, 256, (90, 160, 3), dtype=np.uint8) for _ in range(count)] for count in (3, 1, 2)]


def by_hand(vlm, frames) -> str:
    """One clip alone: the prompt spelt out, the pixels laid into patches, and an argmax a token without a cache."""
    import torch

    pixels = vlm.processor.image_processor(images=frames, return_tensors="pt")
    tokenizer = vlm.processor.tokenizer
    tokens_each = [int(grid.prod()) // 4 for grid in pixels["image_grid_thw"]]  # 2 x 2 patches make a token
    pictures = "".join(f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>" for count in tokens_each)
    prompt = f"<|im_start|>user\n{pictures}{vlm.config.prompt}<|im_end|>\n<|im_start|>assistant\n"
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = tokens.shape[1]
    for _ in range(vlm.config.max_new_tokens):
        types = (tokens == vlm.model.config.image_token_id).int()
        with torch.no_grad():
            logits = vlm.model(input_ids=tokens, mm_token_type_ids=types, use_cache=False, **pixels).logits[0, -1]
        tokens = torch.cat([tokens, logits.argmax()[None, None]], dim=1)
        if tokens[0, -1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(tokens[0, start:], skip_special_tokens=True).strip()


def said(vlm, clips) -> list[str]:
    return [one.text for one in vlm.answer([Chat(frames, (vlm.config.prompt,)) for frames in clips])]


def test_a_batch_says_of_each_clip_what_the_model_says_of_it_alone(vlm, clips):
    true = [by_hand(vlm, frames) for frames in clips]
    assert len(set(true)) == 3  # different clips, different words: a mix-up would show
    assert said(vlm, clips) == true
    assert said(vlm, clips[::-1]) == true[::-1]
    assert said(vlm, []) == []


def oom_above(vlm, most, monkeypatch):
    """The model, on a device that holds so many clips at once; the sizes that were tried."""
    import torch

    generate, tried = type(vlm.model).generate, []

    def short_of_memory(model, **inputs):
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return generate(model, **inputs)

    monkeypatch.setattr(vlm.model, "generate", lambda **inputs: short_of_memory(vlm.model, **inputs), raising=False)
    monkeypatch.setattr(vlm, "most", None)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(vlm, clips, monkeypatch):
    many = [*clips, *clips, clips[0], clips[2]]
    true = said(vlm, many)
    tried = oom_above(vlm, 2, monkeypatch)
    assert said(vlm, many) == true and tried == [8, 4, 2, 2, 2, 2]
    assert said(vlm, many[:3]) == true[:3] and tried[6:] == [2, 1]


def test_one_clip_that_does_not_fit_alone_is_an_error_of_memory(vlm, clips, monkeypatch):
    from ptta_core import fleet
    from ptta_core.config import Workers

    oom_above(vlm, 0, monkeypatch)
    made = fleet.fan_out(lambda: lambda items: vlm.answer([Chat(one, ("?",)) for one in items]), clips[:1], Workers())
    ((_, failed),) = next(iter(made))
    assert failed.kind == "out_of_memory" and failed.retryable


def test_an_answer_that_was_cut_is_told(vlm):
    import torch

    new = torch.tensor([[5] * vlm.config.max_new_tokens, [5] * 9 + [vlm.processor.tokenizer.eos_token_id]])
    assert vlm._cut(new) == [True, False] and vlm._cut(new[:, :9]) == [False, False]


def test_a_model_without_safetensors_is_refused(tmp_path, vlm):
    import torch

    vlm.model.config.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    torch.save(vlm.model.state_dict(), tmp_path / "pytorch_model.bin")
    config = CaptionConfig(captioner="transformers", model=ModelRef(id=str(tmp_path)))
    with pytest.raises(OSError, match="safetensors"):
        captioner.make_captioner(config)
