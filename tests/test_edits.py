"""A person's words: by id, by the beginning of one, by file; what is unclear is refused."""

import pytest

from ptta_core.config import ConfigError
from ptta_core.ops import edits
from ptta_core.rows import Clip
from ptta_core.stages.select import decisions
from ptta_core.store import Store


@pytest.fixture
def workspace(tmp_path):
    """Three clips, two of which begin alike."""
    import pyarrow as pa

    from ptta_core.rows import table_schema

    schema = table_schema(Clip)
    rows = [{"key": clip, "clip_id": clip} for clip in ("aa11", "aa22", "bb33")]
    Store(tmp_path / "tables").insert("clips", pa.Table.from_pylist(rows, schema=schema))
    return tmp_path


def words(workspace) -> dict[str, str]:
    return {clip: word for clip, (word, _) in decisions(Store(workspace / "tables")).items()}


def test_ids_and_unique_beginnings(workspace):
    edits.decide(str(workspace), pin=["aa1", "bb33"], veto=["aa22"], author="Ann")
    assert words(workspace) == {"aa11": "keep", "bb33": "keep", "aa22": "veto"}
    assert decisions(Store(workspace / "tables"))["aa22"] == ("veto", "Ann")


def test_the_newest_word_stands_and_unpin_forgets(workspace):
    edits.decide(str(workspace), pin=["aa11", "bb33"])
    edits.decide(str(workspace), veto=["aa11"], unpin=["bb33"])
    assert words(workspace) == {"aa11": "veto"}


def test_a_file_as_the_report_saves_it(workspace, tmp_path):
    saved = tmp_path / "decisions.csv"
    saved.write_text("clip_id,decision\naa11,keep\nbb33,veto\n")
    found = edits.decide(str(workspace), files=[str(saved)])
    assert found == {"keep": ["aa11"], "veto": ["bb33"], "unpin": []}
    ids = tmp_path / "ids.csv"
    ids.write_text("aa22\n\nbb33\n")
    edits.decide(str(workspace), pin=[str(ids)])
    assert words(workspace) == {"aa11": "keep", "aa22": "keep", "bb33": "keep"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"pin": ["aa"]}, "'aa' begins 2 clip ids: aa11, aa22"),
        ({"pin": ["cc"]}, "no clip 'cc'"),
        ({"pin": ["aa11"], "veto": ["aa1"]}, "named with two words"),
        ({"files": ["absent.csv"]}, "no such file: absent.csv"),
        ({}, "name clips with --pin"),
    ],
)
def test_what_is_unclear_is_refused_and_nothing_is_stored(workspace, arguments, says):
    with pytest.raises(ConfigError, match=says):
        edits.decide(str(workspace), **arguments)
    assert words(workspace) == {}


def test_an_unknown_word_names_the_file_and_the_line(workspace, tmp_path):
    saved = tmp_path / "decisions.csv"
    saved.write_text("clip_id,decision\naa11,keep\nbb33,maybe\n")
    with pytest.raises(ConfigError, match=r"decisions\.csv, line 3: 'maybe' is no decision; choices: keep, veto"):
        edits.decide(str(workspace), files=[str(saved)])
