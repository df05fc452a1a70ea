"""Prequal: the least latency among those whose calls in flight are not too many, as servers tell them."""

from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport word
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport SlotWords

cdef extern from *:
    """
    #define GRPCLB_MOST_POOLED 64 /* one of 16 is what the paper takes, and a choice looks at all of it */
    #define GRPCLB_RECENT 64 /* a quantile of 64 draws is within a ninth of the true rank, 95 times of 100 */
    """
    enum:
        MOST_POOLED "GRPCLB_MOST_POOLED"
        RECENT "GRPCLB_RECENT"


cdef struct Entry:
    # A report in the pool
    uint32_t member
    uint32_t uses  # how many calls may still go by it
    int64_t others  # calls in flight there that were not ours
    double in_flight  # all of them by now, for each mean weight; good while a choice is made
    double latency_ns  # 0 if unknown
    int64_t time_ns
    int64_t failures  # of our own calls there, when it came


cdef struct Doubt:
    # How far a member is to be believed
    word failures  # of our own calls there, when last looked at
    word successes
    word until_ns  # its reports count for nothing until then


cdef class PrequalPicker(Picker):
    cdef dict places  # of slots in the view
    cdef Doubt* doubts
    cdef uint32_t pool_size
    cdef double q_rif
    cdef readonly double reuse_budget
    cdef double least_hot  # an endpoint with no more calls in flight is never hot
    cdef double removals  # for each report that comes
    cdef int64_t max_age_ns
    cdef int64_t explore_ns
    cdef double aversion_ns
    cdef int64_t built_ns
    cdef word chosen
    # What the lock guards
    cdef word lock
    cdef Entry pool[MOST_POOLED]
    cdef uint32_t pooled
    cdef double recent[RECENT]  # calls in flight of the last reports, in the order in which they came
    cdef double ordered[RECENT]  # the same, from least to most
    cdef uint32_t known
    cdef uint32_t oldest
    cdef double hot_above
    cdef double owed  # removals
    cdef bint worst_is_next

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil
    cdef bint is_unheard(self, const SlotWords* slot, int64_t now_ns) noexcept nogil
    cdef uint32_t choose_plainly(self, uint32_t first, int64_t now_ns) noexcept nogil
    cdef double cost_of(self, uint32_t member, int64_t now_ns) noexcept nogil
    cdef uint32_t choose_pooled(self, int64_t now_ns) noexcept nogil
    cdef uint32_t best_of_pool(self, int64_t now_ns) noexcept nogil
    cdef bint is_good(self, const Entry* entry, int64_t now_ns) noexcept nogil
    cdef void count(self, Entry* entry) noexcept nogil
    cdef bint is_hot(self, const Entry* entry) noexcept nogil
    cdef bint is_doubted(self, uint32_t member, int64_t now_ns) noexcept nogil
    cdef int64_t aversion(self, int64_t streak) noexcept nogil
    cdef void judge(self, uint32_t member, int64_t failures, int64_t now_ns) noexcept nogil
    cdef void admit(self, uint32_t member, int64_t now_ns) noexcept nogil
    cdef void put(self, uint32_t member) noexcept nogil
    cdef void note(self, double in_flight) noexcept nogil
    cdef void remove(self, uint32_t place) noexcept nogil
    cdef uint32_t oldest_entry(self) noexcept nogil
    cdef uint32_t worst_entry(self) noexcept nogil
    cdef int start(self, int64_t now_ns) except -1
