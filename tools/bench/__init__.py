"""The benchmark of this repository: `make bench`, or `PYTHONPATH=tools python -m bench`.

Every figure stands beside what others need for the same work and beside what the machine could do
at best. One file per part: limits, scan, variants, conv, models, memory, accuracy, sweep, and for
the sequence layers s4, s5, mamba2, decode.
"""
