"""The report: what it counts is what it was given, nothing in it can run or reach out, and it stays small."""

import base64
import hashlib
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ptta_core.report import (
    ClipCard,
    FailureRow,
    GenerationPair,
    ReportData,
    StageCount,
    ThetaRow,
    VerdictRow,
    theta_line,
    theta_table,
    write_report,
)
from ptta_core.report.charts import Series, curves, histogram, smoothed
from ptta_core.report.page import MOST_BYTES, render
from ptta_core.report.sheet import EMBEDDED_PICTURES, sheet
from ptta_core.report.text import duration, fixed, number, timecode, when
from ptta_core.report.ticks import nice_range, nice_ticks, tick_label

VOID = {"meta", "img", "br", "input", "link", "hr"}
STARTED, ENDED = "2025-11-23T03:34:10+00:00", "2025-11-23T03:37:42+00:00"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 30 + b"\xff\xd9"


class Page(HTMLParser):
    """Parses a page strictly: every tag closed in order; gathers texts, attributes and elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"doubled attribute in <{tag} {attrs}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(tag for tag, _ in self.open), data))

    def said(self) -> str:
        """Every text a reader sees, in order."""
        seen = (text for path, text in self.texts if not {"style", "script", "title"} & set(path))
        return re.sub(r"\s+", " ", " ".join(seen))

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """The attributes of every element of this kind; `class_="x"` asks for a class."""
        classes = wanted.get("class_", "").split()
        found = (attrs for name, attrs in self.elements if name == tag)
        return [attrs for attrs in found if set(classes) <= set((attrs.get("class") or "").split())]


def clip(index: int, score: float | None = None, kept: bool | None = None, **more: object) -> ClipCard:
    start = 2.0 * index
    motion = None if score is None else (score - 0.3 * 5) / 0.7
    card = ClipCard(f"c{index}", "a.mp4", start, start + 2, motion, 5.0 if score is not None else None, score, kept)
    return replace(card, **more)  # type: ignore[arg-type]


def data(**more: object) -> ReportData:
    plain = ReportData("demo", "r1", STARTED, ENDED, "laptop", "ws", 10.0, 0.7)
    return replace(plain, **more)  # type: ignore[arg-type]


def section(page: str, name: str) -> str:
    """The HTML of one section."""
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    assert found, f"no section {name}"
    return found.group(1)


@pytest.fixture
def full() -> ReportData:
    clips = [clip(i, float(i), i >= 10 and i != 12, reason="" if i >= 10 else f"S {i} < theta 10") for i in range(20)]
    clips[12] = replace(clips[12], reason="duplicate of c13")
    return data(
        clips=[replace(one, thumbnail_jpeg=JPEG, caption="A fox runs.") for one in clips],
        river=[
            StageCount("split", "clips", 3, 20, 12, 8, 1, 4.2),
            StageCount("select", "selection", 20, 9, 1, 0, 0, 0.1),
        ],
        training=[("rank", "16")],
        loss=[(step, 1 / step) for step in range(1, 51)],
        gates=[(step, [0.4, 0.3, 0.2, 0.1]) for step in range(1, 51)],
        generations=[GenerationPair("a fox", 7, b"BASE-VIDEO", None, b"ADAPTER-VIDEO", None)],
        verdicts=[VerdictRow("dynamic degree", 2.672, 2.933, 0.261, 4, "measures", 0.1, 0.4)],
        failures=[FailureRow("split", "unreadable", "x.mp4", "moov atom not found")] * 2
        + [FailureRow("caption", "timeout", "c3", "no answer", 2, True)],
        settings="name: demo\nselect:\n  theta: 10.0\n",
    )


# ------------------------------------------------------------------------------------------ the page


def test_written_page_is_whole_and_nothing_else_is_left(tmp_path: Path, full: ReportData) -> None:
    path = tmp_path / "reports" / "r1.html"
    size = write_report(full, path)
    assert size == path.stat().st_size
    assert [one.name for one in path.parent.iterdir()] == ["r1.html"]
    Page(path.read_text(encoding="utf-8"))


def test_a_failed_write_keeps_the_page_before(
    tmp_path: Path, full: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r1.html"
    path.write_text("before")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_report(full, path)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["r1.html"]


def test_counts_in_the_page_are_the_counts_given(full: ReportData) -> None:
    page = render(full)
    river = Page(section(page, "river")).said()
    assert "split 20 clips from 3 12 computed 8 reused 1 failed 4.2 s" in river
    assert "select 9 selection from 20 1 computed 0.1 s" in river
    assert river.count("not run") == 8
    cards = Page(section(page, "clips"))
    assert len(cards.all("img")) == 20
    assert "Kept 9 clips, 18.0 s" in cards.said() and "Not kept 11 clips, 22.0 s" in cards.said()
    assert "20 clips from 1 video; 9 kept at theta 10." in Page(page).said()
    assert "An adapter trained for 50 steps, 1 prompt pair generated. 3 items failed." in Page(page).said()


def test_cards_are_kept_first_and_by_score(full: ReportData) -> None:
    ids = [attrs["id"] for attrs in Page(section(render(full), "clips")).all("li")]
    kept = [f"c{i}" for i in range(19, 9, -1) if i != 12]
    assert ids == [*kept, "c12", *(f"c{i}" for i in range(9, -1, -1))]
    said = Page(section(render(full), "clips")).said()
    assert "duplicate of c13" in said and "S 9 < theta 10" in said


def test_bars_hold_every_clip_once(full: ReportData) -> None:
    for chart in section(render(full), "scores").split("<figcaption>")[1:]:
        bars = re.findall(r"<title>[^<]*: (\d+) kept, (\d+) not</title>", chart)
        assert sum(int(kept) for kept, _ in bars) == 9
        assert sum(int(rejected) for _, rejected in bars) == 11


def test_theta_is_drawn_where_it_lies() -> None:
    chart = histogram([0.0, 20.0], [False, True], "S", "clips", (10.0, "theta 10"))
    assert re.search(r'<line class="mark" x1="50.00%" x2="50.00%"', chart)


def test_settings_verdicts_and_failures_are_shown(full: ReportData) -> None:
    page = render(full)
    assert section(page, "settings").count("name: demo\nselect:\n  theta: 10.0") == 1
    verdict = Page(section(page, "verdicts")).said()
    assert "dynamic degree 2.672 2.933 +0.261 +0.100 to +0.400 4" in verdict
    failures = Page(section(page, "failures")).said()
    assert failures.index("unreadable 2") < failures.index("timeout 1")
    assert "c3 no answer 2 yes" in failures


# ------------------------------------------------------------------------------------------ thetas


def test_theta_table_counts_by_score_alone() -> None:
    clips = [clip(i, float(i)) for i in range(20)]
    rows = theta_table(data(clips=[*clips, clip(99), clip(98, float("nan"))]).every_clip, 10.0)
    assert ThetaRow(10.0, 10, 0.5, 20.0) in rows
    assert [row.theta for row in rows] == sorted({row.theta for row in rows})
    assert {5.0, 10.0, 15.0} <= {row.theta for row in rows}
    for row in rows:
        assert row.kept == sum(i >= row.theta for i in range(20))
        assert row.seconds == 2.0 * row.kept


def test_theta_line_reads_as_one_sentence() -> None:
    rows = [ThetaRow(8.0, 34, 0.5, 1.0), ThetaRow(10.0, 12_000, 0.3, 1.0), ThetaRow(12.5, 0, 0.0, 0.0)]
    assert theta_line(rows) == "theta 8 keeps 34, 10 keeps 12,000, 12.5 keeps 0"
    assert theta_line([]) == "" and theta_table(data(clips=[clip(1)]).every_clip, 10.0) == []


def test_a_theta_out_of_reach_is_in_the_table_and_marked() -> None:
    rows = theta_table(data(clips=[clip(i, float(i)) for i in range(5)]).every_clip, 60.0)
    assert rows[-1] == ThetaRow(60.0, 0, 0.0, 0.0)
    page = render(data(theta=60.0, clips=[clip(i, float(i), False) for i in range(5)]))
    said = Page(section(page, "scores")).said()
    assert "No clip was kept: the highest S is 4." in said
    best = re.search(r"With --set select.theta=(\S+) it would be (\d+)\.", said)
    assert best and int(best[2]) == sum(i >= float(best[1]) for i in range(5)) > 0


def test_difference_between_theta_and_kept_is_explained(full: ReportData) -> None:
    said = Page(section(render(full), "scores")).said()
    assert "1 clip at or above theta not kept for other reasons" in said and "9 kept in all" in said


# -------------------------------------------------------------------------------- empty and partial runs


def test_an_empty_run_says_so_in_every_section() -> None:
    page = render(data(ended="", status="running"))
    Page(page)
    for name, phrase in [
        ("scores", "No clip has a score yet."), ("clips", "No clips yet."), ("training", "No adapter was trained"),
        ("generations", "Nothing was generated"), ("verdicts", "Nothing was judged"), ("failures", "Nothing failed."),
        ("settings", "No settings"),
    ]:  # fmt: skip
        assert phrase in section(page, name)
    assert Page(section(page, "river")).said().count("not run") == 10
    assert "This run has not ended" in page and "not ended" in page


def test_a_run_of_split_alone_shows_undecided_clips() -> None:
    page = render(data(clips=[clip(i) for i in range(3)], river=[StageCount("split", "clips", 1, 3, 3, 0, 0, 1.0)]))
    said = Page(section(page, "clips")).said()
    assert "Not decided yet 3 clips" in said and said.count("no picture") == 3
    assert "kept at theta" not in page


def test_odd_numbers_do_not_break_the_charts() -> None:
    nan, inf = float("nan"), float("inf")
    page = render(data(
        clips=[clip(0, 5.0, False), clip(1, nan, False), clip(2, inf, True)],
        loss=[(1, nan), (2, 0.5), (3, inf)], gates=[(1, [1.0])], verdicts=[VerdictRow("x", nan, None, None, 0)],
    ))  # fmt: skip
    Page(page)
    drawn = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"[\">\s](nan|inf)\b", drawn)
    assert "2 steps without a finite loss" in page
    Page(render(data(loss=[(1, nan)])))
    Page(render(data(loss=[(0, 0.0)], training=[("rank", "16")])))


# -------------------------------------------------------------------------------------------- escaping

NASTY = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'onload='alert(1)", "</style><b>", "a & b &lt; c",
    "قصة قصيرة عن ثعلب", "狐が走る 🦊", "nul\x00bell\x07", "bad byte \udcff", "]]><!--", "{{x}}${y}",
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_text_from_outside_stays_text(text: str, tmp_path: Path) -> None:
    write_report(everywhere(text), tmp_path / "r.html")
    page, plain = Page((tmp_path / "r.html").read_text(encoding="utf-8")), Page(render(everywhere("plain")))
    assert [(tag, list(attrs)) for tag, attrs in page.elements] == [(tag, list(attrs)) for tag, attrs in plain.elements]
    shown = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)
    assert page.said().count(re.sub(r"\s+", " ", shown)) == plain.said().count("plain") >= 20


def everywhere(text: str) -> ReportData:
    """A run with the same text in every field that holds text."""
    card = clip(0, 5.0, False, clip_id=text, source_name=text, reason=text, caption=text, thumbnail_href=text)
    return data(
        recipe=text, run_id=text, started=text, site=text, workspace=text, status=text, message=text,
        river=[StageCount("split", text, 1, 1, 1, 0, 0, 1.0, text), StageCount(text, text, 1, 1, 1, 0, 0, 1.0)],
        clips=[card], training=[(text, text)], loss=[(1, 1.0)],
        generations=[GenerationPair(text, 0, None, text, None, text)], verdicts=[VerdictRow(text, 1, 2, 1, 1, text)],
        failures=[FailureRow(text, text, text, text)], random_models=[text], settings=text,
    )  # fmt: skip


def test_nothing_points_outside(full: ReportData) -> None:
    far = "https://example.org/x.jpg"
    pair = GenerationPair("p", 0, None, "javascript:alert(1)", None, "//example.org/v.mp4")
    card = clip(1, 12.0, True, thumbnail_href=far)
    page = render(replace(full, clips=[*full.clips, card], generations=[*full.generations, pair]))
    for tag, attrs in Page(page).elements:
        for name in ("src", "href", "srcset", "poster", "action"):
            value = attrs.get(name)
            assert value is None or not re.match(r"(?!data:|#)([a-z]+:|//)", value, re.I), f"<{tag} {name}={value!r}>"
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page


def test_odd_file_names_in_links_are_quoted() -> None:
    page = Page(render(data(clips=[clip(1, 12.0, True, thumbnail_href="pictures/a b#1?50%.jpg")])))
    assert [attrs["src"] for attrs in page.all("img")] == ["pictures/a%20b%231%3F50%25.jpg"]


def test_only_the_pages_own_script_may_run(full: ReportData) -> None:
    page = render(full)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert script and policy
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy[1])
    assert "default-src 'none'" in policy[1]


# -------------------------------------------------------------------------------- random tiny models


@pytest.mark.parametrize(
    ("model", "marked"),
    [
        ("base.model = tiny:hunyuan", {"training": 2, "generations": 1, "verdicts": 1}),
        ("caption.model = tiny:vlm", {"clips": 1, "training": 2, "generations": 1, "verdicts": 1}),
        ("evaluate.videoscore = tiny:judge", {"verdicts": 1}),
        ("score.motion_model = tiny:raft", {"scores": 3, "clips": 1, "training": 2, "generations": 1, "verdicts": 1}),
        ("something else", {"scores": 3, "clips": 1, "training": 2, "generations": 1, "verdicts": 1}),
    ],
)
def test_every_figure_a_random_model_reaches_says_so(full: ReportData, model: str, marked: dict[str, int]) -> None:
    page = render(replace(full, random_models=[model]))
    phrase = "random tiny model: no quality figure"
    names = ("river", "scores", "clips", "training", "generations", "verdicts", "failures", "settings")
    assert {name: section(page, name).count(phrase) for name in names if phrase in section(page, name)} == marked
    assert "Random tiny models" in page and "Random tiny models" not in render(full)
    assert phrase not in render(full)


# ------------------------------------------------------------------------------------------------ size


def test_12000_clips_fit_in_30_MB(tmp_path: Path) -> None:
    jpeg, caption = b"\xff\xd8" + bytes(20_000), "A <fox> & a \"hare\" run over the snow. " * 40
    scores = [(i * 7919 % 4000) / 100 for i in range(12_000)]
    clips = [
        clip(i, score, score >= 10, thumbnail_jpeg=jpeg, thumbnail_href=f"t/{i}.jpg", caption=caption)
        for i, score in enumerate(scores)
    ]
    pair = GenerationPair("a fox " * 200, 0, bytes(700_000), "base.mp4", bytes(700_000), "adapter.mp4")
    failures = [FailureRow("score", f"kind {i % 50}", "x" * 500, "y" * 5000) for i in range(12_000)]
    everything = data(
        clips=clips, loss=[(i, 1.0 + i % 7) for i in range(200_000)], gates=[(i, [0.25] * 12) for i in range(20_000)],
        generations=[pair] * 20, failures=failures,
    )  # fmt: skip
    size = write_report(everything, tmp_path / "big.html")
    assert size <= MOST_BYTES
    page = (tmp_path / "big.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 12_000
    assert page.count('src="data:image/jpeg;base64,') == EMBEDDED_PICTURES
    best = sorted(clips, key=lambda one: (-(one.score or 0), one.start_s))[0]
    assert f'<li id="{best.clip_id}"' in page.split('src="data:image/jpeg')[0], "the best clip is the first embedded"
    assert page.count('src="data:video/mp4;base64,') == 11  # 11 times 0.7 MB fit into 8 MB
    assert page.count('src="base.mp4"') + page.count('src="adapter.mp4"') == 40 - 11
    assert page.count("140 more of this kind.") == 20 and "7,200 failures of other kinds." in page


def test_text_that_escaping_makes_six_times_longer_still_fits(tmp_path: Path) -> None:
    quotes = '"' * 1_000
    cards = [clip(i, 5.0, False, caption=quotes, reason=quotes, source_name=quotes) for i in range(12_000)]
    assert write_report(data(clips=cards, settings=quotes * 50), tmp_path / "r.html") <= MOST_BYTES
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    drawn = page.count(' data-o="')
    assert 5_000 < drawn < 12_000 and f"{12_000 - drawn:,} more clips left out" in page


def test_beyond_the_bound_cards_are_left_out_and_counted() -> None:
    made = sheet([clip(i, float(i), True, caption="x" * 500) for i in range(100)], 22_000)
    cards = len(Page(made).all("li"))
    assert len(made.encode()) <= 22_000 and 0 < cards < 100
    assert f"{100 - cards} more clips left out" in made


def test_videos_are_embedded_byte_for_byte(full: ReportData) -> None:
    sources = [attrs["src"] or "" for attrs in Page(render(full)).all("video")]
    assert [base64.b64decode(source.split(",")[1]) for source in sources] == [b"BASE-VIDEO", b"ADAPTER-VIDEO"]


# -------------------------------------------------------------------------------------- charts and words


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert nice_ticks(0.13, 0.41, 4) == [0.2, 0.3, 0.4]
    assert nice_ticks(3, 3) == [3] and nice_range(3, 3)[0] < 3 < nice_range(3, 3)[1]
    assert nice_range(0.13, 0.41, 4) == pytest.approx((0.1, 0.5))
    assert [tick_label(0.1, 0.05), tick_label(12_000, 2_000), tick_label(-2, 1)] == ["0.10", "12,000", "−2"]


def test_smoothing_keeps_a_constant_and_follows_a_step() -> None:
    assert [value for _, value in smoothed([(i, 2.0) for i in range(5)], 3)] == pytest.approx([2.0] * 5)
    after = smoothed([(float(i), float(i >= 50)) for i in range(100)], 10)
    assert after[49][1] == 0 and after[99][1] > 0.99 and 0.05 < after[50][1] < 0.2


def test_a_long_curve_is_thinned_but_keeps_its_peak() -> None:
    points = [(float(i), 100.0 if i == 77_777 else 1.0) for i in range(100_000)]
    chart = curves([Series("loss", points, "raw")], "step", "loss")
    path = re.search(r'd="M([^"]*)"', chart)
    assert path and len(path[1].split("L")) <= 1_000
    assert min(float(point.split()[1]) for point in path[1].split("L")) == 0.0


def test_a_long_tail_is_gathered_and_named() -> None:
    values = [float(i % 20) for i in range(200)] + [900.0]
    chart = histogram(values, [True] * len(values), "px", "clips")
    assert "The last bar holds everything" in chart and "to 900" in chart
    assert sum(int(kept) for kept in re.findall(r": (\d+) kept", chart)) == 201


def test_words_for_values() -> None:
    said = [duration(seconds) for seconds in (0.42, 59.99, 75, 7300)]
    assert said == ["0.4 s", "1 min 0 s", "1 min 15 s", "2 h 1 min"]
    assert [timecode(75.25), timecode(3700)] == ["1:15.2", "1:01:40.0"]
    assert [number(10.0), number(12.345), number(-0.001), number(None)] == ["10", "12.35", "0", "–"]
    assert fixed(0.12, 3, signed=True) == "+0.120" and fixed(float("nan"), 2) == "–"
    assert when(STARTED, ENDED) == "23 November 2025, 03:34 UTC, took 3 min 32 s"
    assert when("soon", "") == "soon"


def test_clips_can_be_marked_by_hand_and_saved_as_csv(full: ReportData) -> None:
    page = render(full)
    assert 'id="marks"' in page and "clip_id,decision" in page
    assert page.count('tabindex="0"') == len(full.clips)


def test_held_out_loss_the_line_and_the_rules_are_shown() -> None:
    cards = [clip(1, 10.5, True), clip(2, 9.5, False), clip(3, 2.0, False)]
    page = render(data(clips=cards, near=[cards[0].clip_id, cards[1].clip_id], loss=[(1, 1.0), (2, 0.9)],
                       rejected=[("select.theta", 1), ("select.rule", 1234)],
                       held_out=[(step, at, 0.5 + at) for step in (1, 2) for at in range(4)]))  # fmt: skip
    scores, training = section(page, "scores"), section(page, "training")
    assert "select.rule" in scores and "1,234" in scores
    assert scores.count(f'href="#{cards[0].clip_id}"') == 1 and cards[2].clip_id not in scores
    assert "Held-out loss" in training and all(f">Q{number}<" in training for number in (1, 2, 3, 4))


def test_clips_without_a_card_count_in_every_figure() -> None:
    cards = [clip(1, 12.0, True), clip(2, 3.0, False)]
    many = data(clips=cards * 500).every_clip
    page = render(data(clips=cards, columns=many))
    assert "1,000 clips from" in page and "500 kept" in page
    assert "998 more clips left out" in section(page, "clips")
    assert theta_table(many, 10.0) == theta_table(data(clips=cards * 500).every_clip, 10.0)
