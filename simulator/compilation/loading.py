"""From kept machine code to a function that Python calls.

The code is an object file with one function ``ENTRY``, which takes the address of the results (64 bits each), then the
arguments: numbers as such, arrays and named tuples of arrays as the addresses of their Python objects. It returns 0, or
another number if there was an exception. LLVM's linker puts it into memory, and ctypes calls it.
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from struct import Struct
from typing import Any

from simulator.compilation.kinds import BOOL, FLOAT, INT, Kind

ENTRY = "poolpipe_entry"
C_TYPES: dict[Kind, Any] = {INT: ctypes.c_int64, BOOL: ctypes.c_int64, FLOAT: ctypes.c_double}


@dataclass(frozen=True)
class MachineCode:
    """An object file, and what it returns.

    ``results`` is a format of `struct`: an item of 64 bits each. ``single`` says that it returns one, not a tuple.
    """

    results: str
    single: bool
    object_file: bytes


def load(code: MachineCode, kinds: Sequence[Kind]) -> Callable[[Sequence[object]], Any]:
    """Return a function of a list of arguments of these kinds."""
    engine = _linked(code.object_file)
    of_c = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *(C_TYPES.get(kind, ctypes.py_object) for kind in kinds))(
        engine.get_function_address(ENTRY)
    )
    unpack = Struct(code.results).unpack
    words = Struct(code.results).size // 8
    room, single = ctypes.c_int64 * words, code.single

    def call(arguments: Sequence[object], _engine: object = engine) -> Any:
        results = room()
        if of_c(results, *arguments):
            raise RuntimeError("compiled code: an exception, which cannot be told there")
        if not words:
            return None
        return unpack(results)[0] if single else unpack(results)

    return call


def _linked(object_file: bytes) -> Any:
    """Return an engine of LLVM that holds an object file in memory."""
    from llvmlite import binding

    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target().create_target_machine(jit=True))
    engine.add_object_file(binding.ObjectFileRef.from_data(object_file))
    engine.finalize_object()
    return engine


@cache
def _target() -> Any:
    from llvmlite import binding

    initialise()
    return binding.Target.from_triple(binding.get_process_triple())


@cache
def initialise() -> None:
    """Make LLVM ready for this processor."""
    from llvmlite import binding

    with suppress(RuntimeError):  # from llvmlite 0.45 on, which needs no such call
        binding.initialize()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


@cache
def processor() -> str:
    """Return what machine code depends on besides its source: the processor, as LLVM describes it."""
    from llvmlite import binding

    initialise()
    return f"{binding.get_process_triple()} {binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
