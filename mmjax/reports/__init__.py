"""Reports: what people would rather look at, made from the files of a run."""

from mmjax.reports.report import write_report

__all__ = ["write_report"]
