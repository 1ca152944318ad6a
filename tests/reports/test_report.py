from __future__ import annotations

import html.parser
import json
import re

import pytest
from reports.run_files import EVIL, drawing, write_artifacts, write_json

from mmjax.errors import DataError
from mmjax.reports import write_report


class Page(html.parser.HTMLParser):
    """What stands in a page: elements, their attributes, the text, the titles of its sections."""

    VOID = frozenset({"img", "meta"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text, self.titles = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def read(path):
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    return page


@pytest.fixture
def page(workdir):
    return read(write_report(workdir, images=lambda data, example_id: drawing(example_id)))


def test_every_section_is_there(page):
    assert page.titles == [
        "Curves",
        "Metrics",
        "Retrieval",
        "Confusions",
        "Calibration",
        "Reconstruction",
        "Attention",
        "Data",
        "Config",
    ]


def test_untrusted_text_is_shown_and_never_markup(page):
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 2  # as a class in its table, as a word under its map
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]


def test_nothing_is_loaded_from_outside(page, workdir):
    assert not {"link", "script", "iframe", "object", "base", "use"} & set(page.tags)
    sources = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert len(sources) > 20
    assert all(value.startswith("data:image/webp;base64,") for value in sources)
    text = (workdir / "report.html").read_text()
    assert "http://" not in text and "https://" not in text and "url(" not in text


def test_headline_numbers_stand_beside_their_baselines(page):
    text = " ".join(page.text)
    assert re.search(r"retrieval · text → image 0\.\d+ R@10 chance 0\.025 colour histogram 0\.111", text)
    assert re.search(r"classification · digit 0\.\d+ accuracy majority 0\.110", text)
    assert "0.930 to 0.950" in text  # the bounds of the accuracy, in its cell
    assert "finished" in text and "5 min 31 s" in text and "a41340bc0ffe" in text


def test_the_report_is_small(workdir):
    assert write_report(workdir).stat().st_size < 200_000


def test_run_in_progress(workdir):
    for name in ("result.json", "data.json"):
        (workdir / name).unlink()
    for artifact in (workdir / "artifacts").glob("*.json"):
        artifact.unlink()
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3010, "train/lo')  # the line that is being written
    page = read(write_report(workdir))
    assert page.titles == ["Curves", "Metrics", "Config"]
    assert "in progress · 100%" in page.text


def test_a_run_that_has_only_begun(tmp_path, config):
    write_json(tmp_path / "config.json", config)
    page = read(write_report(tmp_path))
    assert page.titles == ["Config"]
    assert "in progress" in page.text


def test_losses_that_are_not_finite_do_not_stop_it(tmp_path):
    lines = [{"step": i, "train/loss": float("nan") if i > 2 else 1.0 / i} for i in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(write_report(tmp_path)).titles == ["Curves"]


def test_what_cannot_be_read_is_named(workdir):
    (workdir / "result.json").write_text("{")
    write_json(
        workdir / "artifacts" / "classification_digit_confusion_matrix.json",
        {"kind": "confusion_matrix", "labels": ["a"]},
    )
    write_json(
        workdir / "artifacts" / "rebuilt.json", {"kind": "reconstruction", "examples": [{"original": "?"}]}
    )
    page = read(write_report(workdir))
    assert page.titles[-1] == "Left out"
    text = " ".join(page.text)
    assert "result.json is not JSON" in text
    assert "artifacts/classification_digit_confusion_matrix.json: has no 'matrix'" in text
    assert "artifacts/rebuilt.json: not a readable picture" in text


def test_images_that_are_not_here_leave_numbers(workdir):
    """The config of this run names no data set that could be opened."""
    page = read(write_report(workdir))
    assert "example 1" in page.text


def test_an_older_report_is_replaced_and_nothing_else_left(workdir):
    (workdir / "report.html").write_text("old")
    before = {path.name for path in workdir.iterdir()}
    write_report(workdir)
    assert {path.name for path in workdir.iterdir()} == before
    assert (workdir / "report.html").read_text().startswith("<!doctype html>")


def test_a_failed_write_leaves_the_older_report(workdir, monkeypatch):
    (workdir / "report.html").write_text("old")
    before = {path.name for path in workdir.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(workdir)
    assert {path.name for path in workdir.iterdir()} == before
    assert (workdir / "report.html").read_text() == "old"


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a run's directory"):
        write_report(tmp_path / "nothing")
    with pytest.raises(DataError, match="is not a run's directory"):
        write_report(tmp_path)


def test_class_names_of_every_kind(workdir):
    for evil in ("\ud800", "\x00\x1b[31m", "‮abc", "", "a" * 5000):
        write_artifacts(workdir, evil)
        read(write_report(workdir))
