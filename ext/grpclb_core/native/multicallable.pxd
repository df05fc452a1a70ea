"""The per-call glue between a stub and the endpoint its call goes to."""

from grpclb_core.native.picker cimport Picker
from grpclb_core.native.ticket cimport Ticket


cdef class CurrentPicker:
    cdef public Picker picker  # None while no endpoint can take a call
    cdef public bint sheds  # whether some calls are to fail before a pick
    cdef object lost
    cdef object is_running
    cdef unsigned long thread

    cdef bint is_in_its_loop(self) except -1


cdef class MultiCallable:
    cdef CurrentPicker current
    cdef object bind
    cdef object otherwise
    cdef list interceptors
    cdef dict bound
    cdef bint stream
    cdef object __weakref__

    cdef tuple endpoint_of(self, Ticket ticket)
    cdef object send(self, object request, object timeout, object metadata, object credentials,
                     object wait_for_ready, object compression)
    cdef object call(self, object request, object timeout, object metadata, object credentials,
                     object wait_for_ready, object compression)
