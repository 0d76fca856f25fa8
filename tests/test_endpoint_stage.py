"""The caption stage with a server: what is committed, what is kept when the server stops, and what is asked again."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from chat_server import chat_server, pictures_of, said
from demo import IN_PROCESS
from servers import wait_for

from ptta_core import memo
from ptta_core.memo import StageError
from ptta_core.models.endpoint import FrameReader
from ptta_core.ops import check, runs
from ptta_core.view import Options


def look(body) -> int:
    """A picture by its bytes."""
    return zlib.crc32(b"".join(pictures_of(body)))


def view_of(place, home, url, options=None, **more):
    """The curated workspace, its captions from a server."""
    overrides = IN_PROCESS | {"select.theta": 6.0, "select.max_motion_px": 40.0, "caption.captioner": "endpoint",
                              "caption.frames": 2, "caption.endpoint.model": "m", "caption.endpoint.url": url} | more
    return runs.open_view("laptop", "laptop", overrides, str(place), str(home / "footage"), options or Options())


def expected(view) -> dict[str, int]:
    """clip -> what the server must have seen of it, read here once more."""
    items = view.items("caption")
    values = items.make(list(range(len(items.item_ids))))
    return {item.clip_id: zlib.crc32(b"".join(FrameReader(2)([item])[0])) for item in values}


def captions(view) -> dict[str, int]:
    return {row["clip_id"]: said(row["text"]) for row in view.rows("caption").to_pylist()}


def test_each_clips_caption_is_about_its_own_pictures_and_nothing_is_asked_twice(curated, curated_home):
    with chat_server(look=look, hold=3) as server:
        view = view_of(curated, curated_home, server.url, **{"caption.endpoint.concurrency": 3})
        first = memo.run(view.stage("caption"), view)
        asked = len(server.seen)
        again = view_of(curated, curated_home, server.url, **{"caption.endpoint.concurrency": 7})
        assert memo.run(again.stage("caption"), again).computed == 0 and len(server.seen) == asked
    true = expected(view)
    assert captions(view) == true and first.computed == asked == len(true) > 3 and first.failed == 0
    assert len(set(true.values())) == len(true) and server.most == 3
    assert {row["captioner"] for row in view.rows("caption").to_pylist()} == {"endpoint m"}


def test_what_was_captioned_is_kept_when_the_server_refuses_and_the_rest_is_asked_later(curated, curated_home):
    with chat_server(look=look) as server:
        view = view_of(curated, curated_home, server.url, **{"caption.endpoint.concurrency": 1})
        true = expected(view)
        last = true[view.items("caption").item_ids[-1]]
        server.script = {last: ["401"]}
        with pytest.raises(StageError, match=r"the key was not accepted.*What was captioned is kept"):
            memo.run(view.stage("caption"), view)
        again = view_of(curated, curated_home, server.url)
        kept = captions(again)
        assert kept == {clip: colour for clip, colour in true.items() if colour != last}
        before = len(server.seen)
        assert memo.run(again.stage("caption"), again).computed == 1
        assert len(server.seen) == before + 1 and captions(again) == true
        assert again.open_failures("caption") == []


def test_a_failed_clip_is_a_row_and_tried_again_when_asked(curated, curated_home):
    with chat_server(look=look) as server:
        view = view_of(curated, curated_home, server.url, **{"caption.endpoint.retries": 0})
        true = expected(view)
        one, other = list(true)[:2]
        server.script = {true[one]: ["500"], true[other]: ["garbage", "garbage"]}
        assert memo.run(view.stage("caption"), view).failed == 2
        rows = {row["item_id"]: row for row in view.open_failures("caption")}
        assert {clip: (row["kind"], row["retryable"]) for clip, row in rows.items()} == {
            one: ("endpoint", True), other: ("malformed_caption", False)}  # fmt: skip
        assert "<html>not what you think</html>" in rows[other]["message"]
        again = view_of(curated, curated_home, server.url, Options(retry_failed=True))
        assert memo.run(again.stage("caption"), again).computed == 2 and captions(again) == true


def test_check_asks_the_server_whether_it_has_the_model(curated, curated_home, monkeypatch):
    def finding(**more):
        view = view_of(curated, curated_home, **more)
        return next(one for one in check.check(view) if one.what == "caption.endpoint")

    with chat_server() as server:
        assert finding(url=server.url).ok
        missing = finding(url=server.url, **{"caption.endpoint.model": "other"})
        assert not missing.ok and "other" in missing.note and "m" in missing.note
        unset = finding(url=server.url, **{"caption.endpoint.api_key_env": "NOT_SET_HERE"})
        assert not unset.ok and "NOT_SET_HERE" in unset.note
    gone = finding(url=server.url)
    assert not gone.ok and "cannot be reached" in gone.note


RUN = """
import sys
from pathlib import Path
from ptta_core import memo
from test_endpoint_stage import view_of
more = {"caption.endpoint.concurrency": 2, "site.commit_rows": 1}
view = view_of(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], **more)
memo.run(view.stage("caption"), view)
"""


def test_a_kill_costs_what_was_under_way_and_no_more(curated, curated_home):
    tests = Path(__file__).parent
    with chat_server(look=look, slow_s=0.3) as server:
        command = [sys.executable, "-c", RUN, str(curated), str(curated_home), server.url]
        process = subprocess.Popen(command, cwd=tests.parent, env=os.environ | {"PYTHONPATH": str(tests)})
        wait_for(lambda: len(server.seen) >= 6 or process.poll() is not None, 60, "the sixth request")
        process.kill()
        process.wait()
        asked, server.slow_s = len(server.seen), 0.0
        view = view_of(curated, curated_home, server.url)
        done = captions(view)
        true = expected(view)
        assert 1 <= len(done) < len(true) and done.items() <= true.items()
        assert asked - len(done) <= 4  # two under way, two answered and not committed yet
        assert memo.run(view.stage("caption"), view).computed == len(true) - len(done)
    assert captions(view_of(curated, curated_home, server.url)) == true
    assert len(server.seen) == asked + len(true) - len(done)


def test_pool_workers_read_the_pictures_and_take_no_gpu(curated, curated_home, ray_session):
    with chat_server(look=look) as server:
        site = {"site.caption.count": 1, "site.caption.gpus": 1.0, "site.caption.batch": 2}  # there is no GPU here
        view = view_of(curated, curated_home, server.url, **site)
        assert memo.run(view.stage("caption"), view).failed == 0
    assert captions(view) == expected(view)
