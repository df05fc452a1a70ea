from libc.stdint cimport uint64_t


cdef extern from "xxh64.h" nogil:
    uint64_t xxh64 "grpclb_xxh64"(const void* data, size_t length) noexcept
