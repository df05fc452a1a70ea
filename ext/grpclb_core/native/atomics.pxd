from libc.stdint cimport int64_t


cdef extern from "atomics.h" nogil:
    ctypedef struct word "grpclb_word":
        pass

    int64_t load "grpclb_load"(const word*) noexcept
    void store "grpclb_store"(word*, int64_t) noexcept
    int64_t add "grpclb_add"(word*, int64_t) noexcept
    void add_held "grpclb_add_held"(word*, int64_t) noexcept
    double load_double "grpclb_load_double"(const word*) noexcept
    void store_double "grpclb_store_double"(word*, double) noexcept
    bint take "grpclb_take"(word*) noexcept
    bint replace "grpclb_replace"(word*, int64_t expected, int64_t value) noexcept
    bint try_lock "grpclb_try_lock"(word*) noexcept
    void unlock "grpclb_unlock"(word*) noexcept
    void* aligned_zeroed "grpclb_aligned_zeroed"(size_t) noexcept
