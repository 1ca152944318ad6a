"""Answers before the job: does a step fit, what does it move and take, on a machine that is not here."""
