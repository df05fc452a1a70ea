"""What does a pick cost, and a call?

Entry points: `pick.measure` and `call.measure`, which return a `Report`; `grpclb bench` prints it and `bench/` runs the
same parts under pytest-benchmark. Read `rounds.py` first: everything is measured in interleaved rounds and reported as
ratios, because a ratio of two neighbours survives a noisy machine and a number of nanoseconds does not.
"""
