"""Compiled functions: numba makes their machine code once, and later processes run it without numba.

    @compiled
    def next_batch(policy, books, arrivals, fate): ...

is an ordinary function for those who call it, from Python (`kernels.py`) and from other compiled functions, whose
part it becomes or not. Named tuples of arrays are passed between these by one address (`by_address.py`). What Python
calls for the first time with arguments of some kinds (`kinds.py`) is compiled with all that it calls (`building.py`)
and kept on disk (`keeping.py`); from then on it is loaded and called (`loading.py`). Importing numba and making it
ready takes longer than simulating ten million requests, so that it happens only where there is something to compile.
"""

from simulator.compilation.kernels import compiled, compiled_apart, prepare

__all__ = ["compiled", "compiled_apart", "prepare"]
