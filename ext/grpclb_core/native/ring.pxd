"""The same endpoint for the same key: a ring of hashes, as a picker."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from grpclb_core.native.atomics cimport word
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.ticket cimport Ticket


cdef struct Point:
    uint64_t hash
    uint32_t member


cdef struct Name:
    # An endpoint, while a ring is made: where its lines begin in the roster, and how many of them have a place in the view
    uint32_t first
    uint32_t members
    uint32_t points
    double weight


cdef class RingHashPicker(Picker):
    cdef Point* points  # by their hashes
    cdef uint32_t length
    cdef double bounded_load  # 0 for no bound
    cdef word* seen  # calls in flight of each member when last looked at; NULL where there is no bound
    cdef word total  # the sum of those
    cdef word cursor  # whom to look at next

    cdef int lay_out(self, list lines, const Name* names, uint32_t count, const uint32_t* places) except -1
    cdef uint64_t hash_of(self, object metadata) except? 0
    cdef Ticket take_for(self, object metadata, int64_t now_ns, bint stream)
    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil
    cdef uint32_t choose_for(self, uint64_t hash) noexcept nogil
    cdef bint may_take(self, uint32_t member) noexcept nogil
    cdef void look_at(self, uint32_t member, int64_t calls) noexcept nogil
