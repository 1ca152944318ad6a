"""A trained run as a function: `mmjax.load(workdir)`."""
