"""The report of a run: one file that opens anywhere, from what the run has written so far."""

from __future__ import annotations

import pathlib

from absl import logging

from mmjax.errors import DataError
from mmjax.files import write_text
from mmjax.reports import classification, gallery, summary
from mmjax.reports.files import RunFiles, read_run
from mmjax.reports.html import element, join, page
from mmjax.reports.names import readable
from mmjax.reports.records import Records
from mmjax.reports.style import CSS

FILE_NAME = "report.html"
# Kind of an artifact -> (title of its section, what draws one), in the order of the page.
_SECTIONS = {
    "retrieval_gallery": "Retrieval",
    "confusion_matrix": "Confusions",
    "classes": "Classes",
    "calibration": "Calibration",
    "reconstruction": "Reconstruction",
    "attention": "Attention",
}


def write_report(workdir: pathlib.Path | str, images: gallery.Images | None = None) -> pathlib.Path:
    """Writes `report.html` into a run's directory, whether the run has finished or not.

    The page needs nothing beside itself: no script, no other file, no network. What the run does
    not have (yet) is left out; a file that cannot be read is named at the end of the page.

    Args:
      workdir: the run's directory.
      images: gives the image of an example of a data set; by default it is read from the prepared
        data that the config names, where that is on this machine.

    Returns:
      The path of the report. An older report there is replaced at once, never half written.

    Raises:
      DataError: when `workdir` is not a run's directory.
    """
    run = read_run(workdir)
    text = _page(run, images or Records(run.config).image)
    target = run.workdir / FILE_NAME
    write_text(target, text)
    return target


def _page(run: RunFiles, images: gallery.Images) -> str:
    notes = list(run.unreadable)
    parts = [
        summary.headline(run),
        summary.curves(run),
        summary.metric_tables(run),
        *[_artifacts(run, kind, images, notes) for kind in _SECTIONS],
        summary.data_section(run),
        summary.config_section(run),
        summary.problems(notes),
    ]
    return page(run.workdir.resolve().name, CSS, element("main", *parts))


def _artifacts(run, kind, images, notes):
    """The section of all artifacts of one kind; those that cannot be drawn are added to `notes`."""
    drawn = []
    for name, artifact in run.artifacts.items():
        if artifact.get("kind") != kind:
            continue
        try:
            shown = _draw(kind, artifact, images)
        except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            notes.append(f"artifacts/{name}.json: {reason}")
            logging.warning("report: artifacts/%s.json cannot be shown: %s", name, reason)
            continue
        if shown is not None:
            title = None if name == kind else element("h3", readable(name.removesuffix(f"_{kind}")))
            drawn.append(join((title, shown)))
    return summary.section(_SECTIONS[kind], *drawn)


def _draw(kind, artifact, images):
    if kind == "retrieval_gallery":
        return gallery.retrieval(artifact, images)
    if kind == "confusion_matrix":
        return classification.confusion_matrix(artifact)
    if kind == "classes":
        return classification.class_table(artifact)
    if kind == "calibration":
        return classification.calibration(artifact)
    if kind == "reconstruction":
        return gallery.reconstructions(artifact)
    return gallery.attention(artifact)
