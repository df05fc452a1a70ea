"""One generation of endpoints, as Python sees it."""

import math

cimport cython
from libc.stdlib cimport free, malloc

from grpclb_core.native.slot cimport Slot
from grpclb_core.native.view cimport Member

# Most endpoints of one view. Indices are drawn from 32 bits; a billion connections is past any client's reach.
cdef object MOST_MEMBERS = 1 << 30


@cython.final
@cython.no_gc
cdef class View:
    """The endpoints a picker chooses among, with their weights; never changed once made.

    Raises:
        ValueError: no slot at all, weights of another length, or a weight that is not a number above 0.
    """

    def __init__(self, slots, weights=None) -> None:
        if self.members != NULL:
            raise ValueError("a view is immutable: make another one")
        cdef tuple owners = tuple(slots)
        cdef list shares = [1.0] * len(owners) if weights is None else [float(weight) for weight in weights]
        if not 0 < len(owners) < MOST_MEMBERS:
            raise ValueError(f"a view needs at least one slot and fewer than {MOST_MEMBERS}; got {len(owners)}")
        if len(shares) != len(owners):
            raise ValueError(f"{len(owners)} slots need as many weights; got {len(shares)}")
        for position, weight in enumerate(shares):
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(f"weight {weight!r} at position {position} is not usable; use a number above 0")
        self.members = <Member*> malloc(len(owners) * sizeof(Member))
        if self.members == NULL:
            raise MemoryError(f"no memory for a view of {len(owners)} slots")
        self.slots = owners
        self.count = <unsigned int> len(owners)
        cdef Slot slot
        for position in range(len(owners)):
            slot = <Slot?> owners[position]  # refuses None as well
            self.members[position].slot = slot.words
            self.members[position].inverse_weight = 1.0 / <double> shares[position]

    def __dealloc__(self) -> None:
        free(self.members)

    def __len__(self) -> int:
        return self.count
