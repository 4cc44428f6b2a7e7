"""The benchmark of the CUDA kernels: `make bench-cuda`, or `PYTHONPATH=tools python -m bench.cuda`.

Ours and every peer that is installed run in one process, in turns, on the same numbers. A result is
compared with float64 before it is timed; a wrong one is not timed. `--smoke` runs tiny sizes on the
CPU and only shows that the benchmark itself works.
"""
