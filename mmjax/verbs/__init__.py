"""One module per verb: `add_flags(parser)` declares its flags, `run(flags, overrides)` does the work."""
