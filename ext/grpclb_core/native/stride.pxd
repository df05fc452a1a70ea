"""Turns by weight: the static stride scheduler of gRPC's weighted round robin, as a picker."""

from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.picker cimport Picker


cdef struct Turn:
    # One place of a round. Of 2^32 rounds, evenly spread, its member is taken in `last` + 1.
    uint32_t last
    uint32_t member


cdef class StridePicker(Picker):
    cdef Turn* turns
    cdef uint32_t length

    cdef int weigh(self, double* shares, list weights) except -1
    cdef int lay_out(self, const double* shares) except -1
    cdef void start_at_random(self) noexcept nogil
    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil
