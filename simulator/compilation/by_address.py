"""Named tuples of arrays as compiled functions pass them on: one address, of a table of where the arrays lie.

numba would pass a named tuple as all of its arrays' parts, some hundred and fifty words for the state of a run, so that
every call would cost more than the work in it, unless the function became a part of its caller. A table has, per array,
the address of its data, its shape and its strides, 64 bits each. Nothing changes it while compiled code runs, which
LLVM is told: what was read of it once need not be read again.
"""

# mypy: disable-error-code="no-untyped-call, override, untyped-decorator"

import hashlib
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel.models import PrimitiveModel
from numba.core.extending import register_model
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.np.arrayobj import make_array, populate_array

ADDRESS, WORD = ir.IntType(8).as_pointer(), ir.IntType(64)


class ByAddress(types.Type):
    """A named tuple of arrays that is passed by address; its arrays are its attributes."""

    def __init__(self, fields: Sequence[str], arrays: Sequence[Any]) -> None:
        self.fields, self.arrays = tuple(fields), tuple(arrays)
        arrays_of = ", ".join(map(str, self.arrays))
        # short, for it becomes a part of the name of every function
        super().__init__(f"ByAddress({hashlib.sha256(f'{self.fields} {arrays_of}'.encode()).hexdigest()[:8]})")

    def array(self, name: str) -> Any:
        """Return the type of an array."""
        return self.arrays[self.fields.index(name)]

    def first_word(self, name: str) -> int:
        """Return where in the table an array begins."""
        return sum(1 + 2 * array.ndim for array in self.arrays[: self.fields.index(name)])


@register_model(ByAddress)
class _Model(PrimitiveModel):
    def __init__(self, manager: Any, of: ByAddress) -> None:
        super().__init__(manager, of, WORD.as_pointer())


@infer_getattr
class _Attributes(AttributeTemplate):
    key = ByAddress

    def generic_resolve(self, of: ByAddress, name: str) -> Any:
        return of.array(name) if name in of.fields else None


@lower_getattr_generic(ByAddress)
def _array_of(context: Any, builder: Any, of: ByAddress, table: Any, name: str) -> Any:
    """Return an array."""
    first, kind = of.first_word(name), of.array(name)
    data = _entry(builder, table, first, ADDRESS)
    sizes = [_entry(builder, table, first + 1 + k, WORD) for k in range(2 * kind.ndim)]
    return array_at(context, builder, kind, data, sizes[: kind.ndim], sizes[kind.ndim :])


def _entry(builder: Any, table: Any, k: int, type_: Any) -> Any:
    """Return an entry of a table, which does not change."""
    entry = builder.load(_place(builder, table, k, type_))
    entry.set_metadata("invariant.load", builder.module.add_metadata([]))
    return entry


def _place(builder: Any, table: Any, k: int, type_: Any) -> Any:
    return builder.bitcast(builder.gep(table, [WORD(k)], inbounds=True), type_.as_pointer())


def new_table(context: Any, builder: Any, arrays: Sequence[Any], types_: Sequence[Any]) -> Any:
    """Return the address of the table of some arrays, which is there until the function at work returns.

    It must be read in functions that are called, and not become a part of this one, which writes it.
    """
    entries = []
    for value, type_ in zip(arrays, types_, strict=True):
        array = make_array(type_)(context, builder, value)
        sizes = (builder.extract_value(part, k) for part in (array.shape, array.strides) for k in range(type_.ndim))
        entries += [builder.bitcast(array.data, ADDRESS), *sizes]
    table = builder.alloca(WORD, len(entries))
    for k, entry in enumerate(entries):
        builder.store(entry, _place(builder, table, k, entry.type))
    return table


def array_at(context: Any, builder: Any, type_: Any, data: Any, shape: Sequence[Any], strides: Sequence[Any]) -> Any:
    """Return an array whose data are at an address."""
    array = make_array(type_)(context, builder)
    populate_array(
        array,
        data=builder.bitcast(data, array.data.type),
        shape=shape,
        strides=strides,
        itemsize=context.get_abi_sizeof(context.get_data_type(type_.dtype)),
        meminfo=None,
    )
    return array._getvalue()
