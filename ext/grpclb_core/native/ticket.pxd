"""The debt of one pick, settled exactly once."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from grpclb_core.native.atomics cimport word
from grpclb_core.native.slot cimport Learning, Slot


cdef class Issuer:
    cdef Learning learning
    cdef public object reporter


cdef class Ticket:
    cdef readonly Slot slot
    cdef Issuer issuer
    cdef int64_t start_ns
    cdef word is_open
    cdef bint stream
    cdef PyObject* core_call  # borrowed: the call that is followed owns this ticket, and not the other way round

    cdef int follow(self, object call) except -1
    cdef bint settle(self, int outcome, int64_t now_ns, double hint_ns=*) noexcept


cdef Ticket open_ticket(Slot slot, Issuer issuer, int64_t now_ns, bint stream)
