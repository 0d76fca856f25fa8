"""Captions from a server: every clip its own, whatever the server does; a real server on loopback and real clips."""

import logging
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from chat_server import COLOURS, chat_server, said

from ptta_core import fleet, video
from ptta_core.config import CaptionConfig, ConfigError, Workers, load_recipe
from ptta_core.models import endpoint
from ptta_core.models.asking import answers
from ptta_core.models.captioner import CaptionItem, Facts, Malformed
from ptta_core.models.endpoint import FrameReader, Refused, Rejected, Unanswered
from ptta_core.stages import load
from ptta_core.stages.caption import row

FACTS = Facts(0, 0, 0, "ones", 0, 0, 1, 0.5, 30, "")
FRAMES = 8  # of each colour
KEY = "sk-very-secret-0123456789"


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A video with a clip of each colour, as items to caption."""
    path = tmp_path_factory.mktemp("colours") / "colours.mp4"
    pictures = [np.full((64, 96, 3), colour, np.uint8) for colour in COLOURS for _ in range(FRAMES)]
    video.write_mp4(path, pictures, 24.0, metadata={})
    times = [frame.pts for frame in video.read_frames(str(path), stream=0, width=32, pixel="gray")]
    step = times[1] - times[0]
    base = Fraction(1, 24 * step)
    return [CaptionItem(f"clip{place}", str(path), times[place * FRAMES], times[place * FRAMES] + FRAMES * step,
                        str(base), 0, "", place * FRAMES / 24, (place + 1) * FRAMES / 24, FACTS, 96, 64,
                        item_id=f"clip{place}")
            for place in range(len(COLOURS))]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "BACK_OFF_S", 0.02)


def config(server, **more) -> CaptionConfig:
    """The recipe's section; endpoint's fields in `more` by name."""
    own = {name: more.pop(name) for name in list(more) if name not in CaptionConfig.model_fields}
    at = {"model": "m", "url": server.url, "timeout_s": 5.0, "retries": 3} | own
    return CaptionConfig(captioner="endpoint", endpoint=at, frames=2, **more)


def prepared(items, size=3):
    """Items with their pictures, as the stage's workers bring them."""
    read = FrameReader(2)
    for at in range(0, len(items), size):
        batch = items[at : at + size]
        yield list(zip(batch, read(batch)))


def ask(server, items, **more):
    """clip -> what came of it."""
    found = [(item.clip_id, one) for item, one in answers(prepared(items), config(server, **more))]
    assert len(found) == len({clip for clip, _ in found})
    return dict(found)


def right(found, items) -> bool:
    """Whether every item has its own caption."""
    return found.keys() == {item.clip_id for item in items} and all(
        said(found[item.clip_id].text) == int(item.clip_id[4:]) for item in items)


def test_answers_in_any_order_stay_with_their_clips(colours):
    with chat_server(hold=6) as server:
        found = ask(server, colours, concurrency=6)
    assert right(found, colours) and server.most == 6
    assert server.answered[:6] == [colour for colour, *_ in server.seen[:6]][::-1]


def test_late_lost_half_and_doubled_replies_and_a_busy_server(colours):
    script = {0: ["late 0.4"], 1: ["lost"], 2: ["half", "lost"], 3: ["429 0.2"], 4: ["500", "503"],
              **{place: ["twice"] for place in range(5, 15)}, 15: ["garbage"], 16: ["say "], 17: ["null"]}  # fmt: skip
    with chat_server(script=script) as server:
        found = ask(server, colours, concurrency=4)
    assert right(found, colours)
    tries = [len(script[place]) + (script[place][0].split()[0] not in ("late", "twice")) for place in range(18)]
    assert [server.asked[place] for place in range(18)] == tries
    assert server.connections == sum(tries)  # no connection serves two requests


def test_a_connection_that_serves_twice_would_mix_clips_up(colours):
    """What the rule of one request a connection is for: the very answers it keeps away."""
    import httpx

    with chat_server(script={0: ["twice"]}) as server, httpx.Client() as client:
        bodies = [endpoint.Endpoint(config(server)).body(["?"], FrameReader(1)([item])[0]) for item in colours[:2]]
        texts = [client.post(f"{server.url}/chat/completions", json=body).json()["choices"][0]["message"]["content"]
                 for body in bodies]  # fmt: skip
    assert said(texts[0]) == 0
    assert texts[1] == "A stale answer." or said(texts[1]) == 1  # as the kernel cuts the packets


def test_a_late_answer_is_given_up_and_never_taken_for_another(colours):
    with chat_server(script={0: ["late 1.0"], 1: ["late 1.0"] * 9}) as server:
        found = ask(server, colours[:4], timeout_s=0.3, retries=1, concurrency=2)
    assert isinstance(found.pop("clip1"), Unanswered) and server.asked[1] == 2
    assert right(found, [colours[0], *colours[2:4]])


def test_when_the_server_says_when_nobody_asks_before(colours):
    with chat_server(script={0: ["429 1"]}) as server:
        found = ask(server, colours[:8], concurrency=1)
    told, *after = [at for *_, at in server.seen]
    assert right(found, colours[:8]) and min(after) - told >= 0.95


def test_requests_a_minute(colours):
    with chat_server() as server:
        found = ask(server, colours[:6], requests_per_minute=60 / 0.15, concurrency=6)
    times = [at for *_, at in server.seen]
    assert right(found, colours[:6]) and times[-1] - times[0] >= 5 * 0.15 - 0.05


def test_a_slow_server_is_kept_busy(colours):
    """Six at once, 0.3 s each: 18 clips in 0.9 s at best; one after the other they take 5.4 s."""
    with chat_server(slow_s=0.3) as server:
        begun = time.monotonic()
        found = ask(server, colours, concurrency=6)
        took_s = time.monotonic() - begun
    assert right(found, colours) and server.most == 6 and took_s < 3


def test_what_is_one_clips_own_fault_costs_that_clip_alone(colours):
    script = {0: ["garbage", "garbage"], 1: ["say  ", "say"], 2: ["500"] * 9, 3: ["400"], 4: ["null", "garbage"]}
    with chat_server(script=script) as server:
        found = ask(server, colours[:6])
        failed = {clip: row(item, found[clip], config(server), "e") for item, clip in
                  [(item, item.clip_id) for item in colours[:5]]}  # fmt: skip
    assert right({"clip5": found["clip5"]}, colours[5:6])
    assert isinstance(found["clip0"], Malformed) and "<html>not what you think</html>" in failed["clip0"].message
    assert {clip: (one.kind, one.retryable) for clip, one in failed.items()} == {
        "clip0": ("malformed_caption", False), "clip1": ("malformed_caption", False), "clip2": ("endpoint", True),
        "clip3": ("endpoint_rejected", False), "clip4": ("malformed_caption", False)}  # fmt: skip
    assert isinstance(found["clip3"], Rejected) and server.asked[3] == 1 and server.asked[2] == 4


@pytest.mark.parametrize(("status", "words"), [
    (401, "the key was not accepted"), (403, "access is forbidden"), (404, "no such address or model"),
    (307, "sends us elsewhere"), ("429 90000", "come back in 1500 minutes"),
])  # fmt: skip
def test_who_refuses_everybody_is_asked_no_more(colours, status, words):
    with chat_server(script={4: [f"{status}"]}) as server:
        got = []
        with pytest.raises(Refused, match=words):
            got.extend(answers(prepared(colours), config(server, concurrency=1)))
    assert right({item.clip_id: one for item, one in got}, colours[:4])  # what came before is not lost
    assert server.asked[4] == 1 and len(server.seen) < 8


def test_a_server_that_is_not_there(colours):
    with chat_server() as server:
        pass
    begun = time.monotonic()
    with pytest.raises(Refused, match=r"cannot be reached .*is the server running there"):
        ask(server, colours[:2], retries=2)
    assert time.monotonic() - begun < 5


def test_keys_come_from_the_environment_and_go_nowhere_else(colours, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    with chat_server(script={0: ["400"], 1: ["500"] * 9, 2: ["garbage"] * 2, 17: ["401"]}) as server:  # all repeat it
        with pytest.raises(Refused, match=r"CAPTION_KEY .* is not set"):
            ask(server, colours, api_key_env="CAPTION_KEY")
        monkeypatch.setenv("CAPTION_KEY", KEY)
        got, mine = [], config(server, api_key_env="CAPTION_KEY", concurrency=1, retries=1)
        with pytest.raises(Refused) as caught:
            got.extend(answers(prepared(colours), mine))
    assert {headers["Authorization"] for _, _, headers, _ in server.seen} == {f"Bearer {KEY}"}
    written = [str(one) for _, one in got] + [str(caught.value), mine.model_dump_json(), caplog.text]
    assert all("***" in str(one) for one in (*(one for item, one in got if item.clip_id in ("clip0", "clip1", "clip2")),
                                             caught.value)) and len(got) == 17  # fmt: skip
    assert not any(KEY in one for one in written)
    for bad in ({"api_key_env": KEY}, {"url": f"http://me:{KEY}@here/v1"}, {"url": f"http://here/v1?key={KEY}"}):
        with pytest.raises(ConfigError, match=r"caption\.endpoint\.(api_key_env|url)") as caught:
            load_recipe("demo", {"caption.endpoint": {"model": "m", "url": "http://here/v1"} | bad})
        assert KEY not in str(caught.value)


def test_a_request_is_what_the_api_defines(colours):
    with chat_server() as server:
        ask(server, colours[:1], prompt="What is it?", max_new_tokens=77, options={"seed": 5, "temperature": None})
    (colour, body, headers, _), = server.seen
    content = body.pop("messages")[0]["content"]
    assert body == {"model": "m", "stream": False, "max_tokens": 77, "seed": 5} and colour == 0
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[-1]["text"] == "What is it?" and "Authorization" not in headers


def test_only_what_changes_a_caption_is_in_the_fingerprint(tmp_path):
    settings = {"captioner": "endpoint", "endpoint": {"model": "m", "url": "http://127.0.0.1:1/v1"}}

    def parts(change):
        caption = settings | {"endpoint": settings["endpoint"] | change.pop("endpoint", {})} | change
        return load("caption").parts(load_recipe("demo", {"caption": caption}), tmp_path)

    same = [{"url": "https://other/v1/"}, {"concurrency": 99}, {"requests_per_minute": 5}, {"timeout_s": 1},
            {"retries": 0}, {"api_key_env": "A_KEY"}]  # fmt: skip
    for change in same:
        assert parts({"endpoint": change}) == parts({}), change
    for change in ({"endpoint": {"model": "n"}}, {"endpoint": {"options": {"seed": 1}}}, {"prompt": "?"},
                   {"frames": 3}, {"max_new_tokens": 9}):  # fmt: skip
        assert parts(change) != parts({}), change


@pytest.mark.parametrize(("overrides", "message"), [
    ({"caption.captioner": "endpoint"}, "needs caption.endpoint"),
    ({"caption.endpoint.url": "http://here"}, r"caption\.endpoint\.model"),
    ({"caption.endpoint": {"model": "m", "url": "here:8000"}}, "must begin with http"),
    ({"caption.endpoint": {"model": "m", "url": "http://here", "concurrency": 0}}, "greater than or equal to 1"),
])  # fmt: skip
def test_a_bad_endpoint_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("demo", overrides)


def test_a_clip_that_cannot_be_read_is_that_clips_failure(colours, tmp_path):
    broken = [replace(colours[3], path=str(tmp_path / "gone.mp4"))]
    items = [*colours[:3], *broken, *colours[4:]]
    pictures = fleet.fan_out(lambda: FrameReader(2), items, Workers(count=0, batch=4))
    with chat_server() as server:
        found = {item.clip_id: one for item, one in answers(pictures, config(server))}
    assert found.pop("clip3").kind == "missing" and right(found, [*colours[:3], *colours[4:]])
