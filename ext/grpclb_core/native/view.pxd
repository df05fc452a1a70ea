"""One generation of endpoints: immutable, contiguous, read by pickers without the GIL."""

from libc.stdint cimport uint32_t, uint64_t

from grpclb_core.native.atomics cimport word
from grpclb_core.native.draws cimport below, draw
from grpclb_core.native.slot cimport SlotWords, in_flight


cdef struct Member:
    SlotWords* slot
    double inverse_weight  # mean weight of the view / own weight


cdef struct Column:
    # One of the equal columns of an alias table: `keep` of 2^32 belong to the member of its place, the rest to `other`
    uint64_t keep
    uint32_t other


cdef class View:
    cdef readonly tuple slots
    cdef readonly tuple roster
    cdef Member* members
    cdef Column* columns  # NULL where all weights are equal
    cdef uint32_t count


cdef inline uint32_t draw_column(const Column* columns, uint32_t count, word* state) noexcept nogil:
    """Draw an index with the odds of its weight: a column, and one of its two owners."""
    cdef uint64_t bits = draw(state)
    cdef uint32_t index = below(state, count, <uint32_t> (bits >> 32))
    return index if <uint32_t> bits < columns[index].keep else columns[index].other


cdef inline uint32_t draw_member(const Member* members, const Column* columns, uint32_t count, word* state) noexcept nogil:
    """Draw an index with the odds of its weight."""
    return below(state, count, <uint32_t> (draw(state) >> 32)) if columns == NULL else draw_column(columns, count, state)


cdef inline double load_of(const Member* member) noexcept nogil:
    """Return 1 + calls in flight for each mean weight.

    The weight has no say where nothing is in flight: there the odds of being drawn give each its share, and a factor
    here would give the heavier of two draws everything.
    """
    return 1.0 + <double> in_flight(member.slot) * member.inverse_weight
