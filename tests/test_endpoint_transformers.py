"""Captions from the server that transformers ships, with a tiny random model: word for word what the model says here.

That server needs the openai package, which nothing else here does: `pip install openai`, and this test runs.
"""

import io
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from servers import end, free_port, wait_for
from test_endpoint import colours, prepared  # noqa: F401  (a fixture)

from ptta_core.config import CaptionConfig, ModelRef
from ptta_core.models import captioner, tiny_vlm
from ptta_core.models.asking import answers
from ptta_core.models.dialogue import Chat
from ptta_core.models.endpoint import FrameReader, look_up

pytest.importorskip("openai", reason="transformers' own server needs the openai package")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(model folder, url) of a running server."""
    folder, port = tiny_vlm.vlm(tmp_path_factory.mktemp("models") / "vlm", 0), free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--host", "127.0.0.1",
               "--port", str(port), "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    with open(folder.parent / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)

    def up() -> bool:
        assert process.poll() is None, (folder.parent / "log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_for(up, 120, "the start of transformers serve")
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        end(process)


def test_the_server_that_transformers_ships(served, colours):  # noqa: F811
    from PIL import Image

    folder, url = served
    settings = {"frames": 2, "max_new_tokens": 10, "prompt": "What is it?"}
    server = {"model": str(folder), "url": url, "concurrency": 3}
    config = CaptionConfig(captioner="endpoint", endpoint=server, **settings)
    found = {item.clip_id: words for item, words in answers(prepared(colours[:5]), config)}
    here = captioner.make_captioner(CaptionConfig(captioner="transformers", model=ModelRef(id=str(folder)), **settings))
    pictures = [[np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs] for jpegs in FrameReader(2)(colours[:5])]
    said = here.answer([Chat(frames, ("What is it?",)) for frames in pictures])
    assert len({one.text for one in said}) > 1
    assert {clip: (words.text, words.cut) for clip, words in found.items()} == {
        item.clip_id: (one.text, one.cut) for item, one in zip(colours, said)}  # fmt: skip
    assert "at http://127.0.0.1" in look_up(config) or "does not list" in look_up(config)
