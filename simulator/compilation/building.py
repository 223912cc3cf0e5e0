"""From a function to machine code that needs neither numba nor the interpreter.

numba compiles the function; around it comes an entry that reads its arguments out of Python's objects where CPython
and NumPy have always had them (`PyArrayObject`: after the object's head its data, its number of dimensions, the
addresses of shape and strides; a tuple: its items after its head).
"""

# mypy: disable-error-code="no-untyped-call"

import ctypes
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import codegen, compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.np import arrayobj
from numba.np.numpy_support import from_dtype

from simulator.compilation.by_address import ADDRESS, WORD, ByAddress, array_at, new_table
from simulator.compilation.kinds import BOOL, FLOAT, INT, ArrayKind, Kind, TupleKind
from simulator.compilation.loading import ENTRY, MachineCode

HEAD = object.__basicsize__
DATA, SHAPE, STRIDES = HEAD, HEAD + 16, HEAD + 24
ITEMS = tuple.__basicsize__

SCALARS = {INT: types.int64, BOOL: types.boolean, FLOAT: types.float64}
DOUBLE, STATUS = ir.DoubleType(), ir.IntType(32)


def build(function: Callable[..., object], kinds: Sequence[Kind], options: dict[str, Any]) -> MachineCode:
    """Compile a function for arguments of these kinds, with all that it calls."""
    flags: Any = compiler.Flags()
    cpu_target.options.parse_as_flags(flags, options)
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.no_compile = True  # until the entry is there
    with (
        global_compiler_lock,
        replaced(arrayobj, "fix_integer_index", _index_from_zero),
        replaced(codegen.CPUCodeLibrary, "_finalize_final_module", _only_linked),
        replaced(codegen.JITCPUCodegen, "set_env", _no_environment),
    ):
        with replaced(codegen.CPUCodeLibrary, "_optimize_final_module", _not_yet):
            result = compiler.compile_extra(
                cpu_target.typing_context,
                cpu_target.target_context,
                function,
                args=tuple(_type(kind) for kind in kinds),
                return_type=None,
                flags=flags,
                locals={},
            )
        context, library = result.target_context, result.library
        returned = types.unliteral(result.signature.return_type)
        single = not isinstance(returned, types.BaseTuple)
        parts = () if returned == types.none else (returned,) if single else tuple(returned)
        with context.push_code_library(library):
            library.add_ir_module(_entry(context, result.fndesc, parts, single))
        library.finalize()
        object_file = library.codegen._tm.emit_object(library._final_module)
    _require_no_more_than_c(library)
    return MachineCode("=" + "".join(_format(part) for part in parts), single, object_file)


@contextmanager
def replaced(owner: Any, name: str, by: Callable[..., Any]) -> Iterator[None]:
    """Let a function of numba's be another one for a while."""
    usual = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, usual)


def _index_from_zero(context: Any, builder: Any, type_: Any, index: Any, _size: Any) -> Any:
    """Return an index as it is. numba would ask of each whether it is negative, and counts from the end."""
    return context.cast(builder, index, type_, types.intp)


def _not_yet(_library: Any) -> None:
    """Leave what a function calls as it is: it is optimised in the end as a part of the whole, not in each part."""


def _only_linked(library: Any) -> None:
    """Say that a function can be linked into others. numba would make machine code of every one, which nobody calls."""
    library._finalized = True


def _no_environment(_codegen: Any, _name: str, _environment: Any) -> None:
    """Give a function without machine code no place for the Python objects that it needs: there are none."""


def _type(kind: Kind) -> Any:
    """Return what numba calls a kind."""
    if isinstance(kind, ArrayKind):
        dtype, readonly = from_dtype(kind.dtype), not kind.writable
        return types.Array(dtype, kind.dimensions, "C" if kind.contiguous else "A", readonly=readonly)
    if isinstance(kind, TupleKind):
        return ByAddress(kind.of._fields, [_type(array) for array in kind.arrays])
    return SCALARS[kind]


def _format(part: Any) -> str:
    """Return the format of a result (`struct`)."""
    if isinstance(part, types.Boolean):
        return "?7x"
    if isinstance(part, types.Float):
        return "d"
    assert isinstance(part, types.Integer), f"a result of type {part}; expected numbers"
    return "q"


def _entry(context: Any, fndesc: Any, parts: Sequence[Any], single: bool) -> Any:
    """Return a module with the entry."""
    module = context.create_module("entry")
    callee = ir.Function(
        module, context.call_conv.get_function_type(fndesc.restype, fndesc.argtypes), fndesc.llvm_func_name
    )
    passed = [_passed_as(type_) for type_ in fndesc.argtypes]
    entry = ir.Function(module, ir.FunctionType(STATUS, [WORD.as_pointer(), *passed]), ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block("entry"))
    results, *arguments = entry.args
    values = [_value(context, builder, *pair) for pair in zip(fndesc.argtypes, arguments, strict=True)]
    status, returned = context.call_conv.call_function(
        builder, callee, fndesc.restype, fndesc.argtypes, values, attrs=("noinline",)
    )
    with builder.if_then(status.is_error, likely=False):
        builder.ret(STATUS(1))
    for k, part in enumerate(parts):
        value = returned if single else builder.extract_value(returned, k)
        builder.store(_word(context, builder, part, value), builder.gep(results, [WORD(k)]))
    builder.ret(STATUS(0))
    return module


def _passed_as(type_: Any) -> Any:
    if type_ == types.float64:
        return DOUBLE
    return WORD if type_ in SCALARS.values() else ADDRESS


def _value(context: Any, builder: Any, type_: Any, argument: Any) -> Any:
    """Return an argument as compiled code has it."""
    if isinstance(type_, types.Array):
        return _array(context, builder, type_, argument)
    if isinstance(type_, ByAddress):
        items = [_load(builder, argument, ITEMS + struct.calcsize("P") * k, ADDRESS) for k in range(len(type_.arrays))]
        arrays = [_array(context, builder, *pair) for pair in zip(type_.arrays, items, strict=True)]
        return new_table(context, builder, arrays, type_.arrays)
    return builder.icmp_unsigned("!=", argument, WORD(0)) if type_ == types.boolean else argument


def _array(context: Any, builder: Any, type_: Any, address: Any) -> Any:
    """Return an array of NumPy as compiled code has it."""
    shape, strides = (
        [
            builder.load(builder.gep(_load(builder, address, where, WORD.as_pointer()), [WORD(k)]))
            for k in range(type_.ndim)
        ]
        for where in (SHAPE, STRIDES)
    )
    return array_at(context, builder, type_, _load(builder, address, DATA, ADDRESS), shape, strides)


def _load(builder: Any, address: Any, offset: int, type_: Any) -> Any:
    """Return what lies behind an address."""
    return builder.load(builder.bitcast(builder.gep(address, [WORD(offset)]), type_.as_pointer()))


def _word(context: Any, builder: Any, type_: Any, value: Any) -> Any:
    """Return a result as 64 bits."""
    if isinstance(type_, types.Float):
        return builder.bitcast(context.cast(builder, value, type_, types.float64), WORD)
    return context.cast(builder, value, type_, types.int64)


def _require_no_more_than_c(library: Any) -> None:
    """Raise AssertionError if the code calls what only numba has: loading it would end the process."""
    of_process = ctypes.CDLL(None)
    for function in library._final_module.functions:
        known = not function.is_declaration or function.name.startswith("llvm.") or hasattr(of_process, function.name)
        assert known, f"compiled code calls {function.name}; expected functions of C's library only"
