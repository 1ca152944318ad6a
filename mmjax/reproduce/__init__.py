"""Tables of experiments: declared in `experiments/<name>/experiment.py`, measured, and written down.

A declaration says which configs are the rows, which metrics the columns, and what is expected;
`./launch.sh reproduce <name>` trains what is missing and writes, beside the declaration,

results.json   what was measured, by row and seed
README.md      the table and its verdicts, computed from results.json and never typed
table.csv      the table's numbers and verdicts for other programs
table.tex      the table for a paper
table.svg      the table as a picture
"""

from mmjax.reproduce.experiment import Claim, Column, Expected, Experiment, Row, percent

__all__ = ["Claim", "Column", "Expected", "Experiment", "Row", "percent"]
