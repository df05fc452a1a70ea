"""One generation of endpoints: immutable, contiguous, read by pickers without the GIL."""

from libc.stdint cimport uint32_t

from grpclb_core.native.slot cimport SlotWords


cdef struct Member:
    SlotWords* slot
    double inverse_weight


cdef class View:
    cdef readonly tuple slots
    cdef Member* members
    cdef uint32_t count
