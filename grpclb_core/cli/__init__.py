"""The `grpclb` command: one module a verb, each with `add_parser` and the function it runs."""
