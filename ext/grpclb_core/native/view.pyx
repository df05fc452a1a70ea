"""One generation of endpoints, as Python sees it."""

import math

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from grpclb_core.native.slot cimport Slot
from grpclb_core.native.view cimport Column, Member

# Most endpoints of one view. Indices are drawn from 32 bits; a billion connections is past any client's reach.
cdef object MOST_MEMBERS = 1 << 30


@cython.final
@cython.no_gc
cdef class View:
    """The endpoints a picker chooses among, with their weights; never changed once made.

    `roster`, where a policy goes by names, has every endpoint there is, those that can take no call now included: its
    name, its weight, and its place among the slots or -1.

    Raises:
        ValueError: no slot at all, weights of another length, or a weight that is not a number above 0.
    """

    def __init__(self, slots, weights=None, roster=None) -> None:
        if self.members != NULL:
            raise ValueError("a view is immutable: make another one")
        cdef tuple owners = tuple(slots)
        cdef list shares = [1.0] * len(owners) if weights is None else [float(share) for share in weights]
        cdef double mean, weight, least = INFINITY, most = 0.0
        cdef Py_ssize_t position
        cdef Slot slot
        if not 0 < len(owners) < MOST_MEMBERS:
            raise ValueError(f"a view needs at least one slot and fewer than {MOST_MEMBERS}; got {len(owners)}")
        if len(shares) != len(owners):
            raise ValueError(f"{len(owners)} slots need as many weights; got {len(shares)}")
        for position in range(len(shares)):
            weight = shares[position]
            if not 0.0 < weight < INFINITY:  # nor is NaN
                raise ValueError(f"weight {weight!r} at position {position} is not usable; use a number above 0")
            least, most = min(least, weight), max(most, weight)
        try:
            mean = math.fsum(shares) / len(shares)
        except OverflowError:
            raise ValueError("the weights add up to more than a number holds; use smaller ones, only ratios count") from None
        self.members = <Member*> malloc(len(owners) * sizeof(Member))
        if self.members == NULL:
            raise MemoryError(f"no memory for a view of {len(owners)} slots")
        self.slots = owners
        self.roster = None if roster is None else tuple(roster)
        for position in range(len(owners)):
            slot = <Slot?> owners[position]  # refuses None as well
            self.members[position].slot = slot.words
            self.members[position].inverse_weight = mean / <double> shares[position]
        if least < most:
            self.columns = <Column*> malloc(len(owners) * sizeof(Column))
            if self.columns == NULL:
                raise MemoryError(f"no memory for a view of {len(owners)} slots")
            fill(self.columns, [share / mean for share in shares])
        self.count = <uint32_t> len(owners)  # last: no picker takes a view without it

    def __dealloc__(self) -> None:
        free(self.members)
        free(self.columns)

    def __len__(self) -> int:
        return self.count

    @property
    def is_even(self) -> bool:
        """Whether all endpoints weigh the same."""
        return self.columns == NULL


cdef int fill(Column* columns, list shares) except -1:
    """Lay shares whose mean is 1 into columns of 1, at most two to a column.

    M. D. Vose, "A linear algorithm for generating random numbers with a given distribution" (1991): those who fall
    short of a column are filled up by those who have more than one.
    """
    cdef list poor = [place for place, share in enumerate(shares) if share < 1.0]
    cdef list rich = [place for place, share in enumerate(shares) if share >= 1.0]
    cdef uint32_t giver, taker
    while poor and rich:
        giver, taker = rich.pop(), poor.pop()
        columns[taker].keep = <uint64_t> (<double> shares[taker] * 4294967296.0)
        columns[taker].other = giver
        shares[giver] -= 1.0 - shares[taker]
        (poor if shares[giver] < 1.0 else rich).append(giver)
    for taker in poor + rich:  # whole but for rounding
        columns[taker].keep = 4294967296
        columns[taker].other = taker
    return 0
