"""The mutable record of one endpoint: two cache lines of atomic words.

Who writes what: `open_call` at a pick, `close_call` when its ticket is finished, `Slot.forget_latency` when the
connection was made anew. Reading never writes.
Calls whose length says something of the server (unary) are timed; streams are counted, not timed.
"""

from libc.stdint cimport int64_t, uint64_t

from grpclb_core.native.atomics cimport add, add_held, load, load_double, store, store_double, word
from grpclb_core.native.ewma cimport faded


cdef enum Outcome:  # the numbers of grpclb_core.types.Outcome
    SUCCESS = 0
    FAILURE = 1
    CANCELLED = 2
    DROPPED = 3
    TIMED_OUT = 4


cdef extern from *:
    """
    /* Layout of SlotWords.timed. 2^20 open calls are past what one endpoint can hold; the 44 bits above them wrap after
     * 208 days of 1.024 us, and only their difference to now is ever used. */
    #define GRPCLB_COUNT_BITS 20
    #define GRPCLB_UNIT_BITS 10
    /* 5 ms: an endpoint that is called more often than that is busy, and looking would cost it; for one that is called
     * less often the look costs next to nothing. */
    #define GRPCLB_ALIVE_NS 5000000
    """
    const int64_t ALIVE_NS "GRPCLB_ALIVE_NS"
    enum:
        COUNT_BITS "GRPCLB_COUNT_BITS"
        UNIT_BITS "GRPCLB_UNIT_BITS"


# Two words are kept twice, for those who count under the GIL and for those who count without it. Under the GIL nobody
# else is counting, so no locked instruction is needed; it is the sum of both that means something.
cdef struct SlotWords:
    # What a pick reads, and what the calls from Python write
    word timed  # open timed calls: their number in the low bits, the sum of their start times above (open_call)
    word timed_free  # the same, counted without the GIL
    word streams  # open calls that are not timed
    word latency_ns  # peak EWMA as it stood at `stamp_ns`; a double
    word stamp_ns  # time of the last timed answer; 0 or less while there was none (is_newcomer)
    word successes
    word alive_ns  # time of the last success; 0 after a failure (is_surely_alive)
    void* owner  # the Slot, borrowed; found here, a pick need not look it up elsewhere in memory
    # What is written less often
    word successes_free  # counted without the GIL
    word failures
    word answered_ns  # time of the last answer before `alive_ns` was last set to 0 (last_answer_ns)
    word unjudged  # finished picks that were neither: cancelled, or never sent
    word timed_out  # timed calls whose deadline the server let pass


cdef inline bint is_newcomer(const SlotWords* slot) noexcept nogil:
    """Tell whether the endpoint has not answered any timed call yet.

    Calls that ended without an answer may have left a lower bound of its latency; then `stamp_ns` is the negative of
    the time when that was learnt.
    """
    return load(&slot.stamp_ns) <= 0


cdef inline double projected_ns(const SlotWords* slot, int64_t now_ns, double rate) noexcept nogil:
    """Return the latency estimate faded to `now_ns`, so that an endpoint left alone comes to be tried again."""
    cdef int64_t stamp = load(&slot.stamp_ns)
    return load_double(&slot.latency_ns) * faded(now_ns - (stamp if stamp > 0 else -stamp), rate)


cdef inline bint is_surely_alive(const SlotWords* slot, int64_t now_ns) noexcept nogil:
    """Tell whether the endpoint answered so recently that its connection need not be looked at before a call.

    A connection that breaks fails the calls on it, and a failure ends this at once.
    """
    return now_ns - load(&slot.alive_ns) < ALIVE_NS


cdef inline int64_t last_answer_ns(const SlotWords* slot) noexcept nogil:
    """Return when the endpoint last answered a call, well or badly; 0 if never.

    A success is told by `alive_ns` alone, so that the common case pays for one word.
    """
    return max(load(&slot.alive_ns), load(&slot.answered_ns))


cdef inline uint64_t timed_calls(const SlotWords* slot) noexcept nogil:
    return <uint64_t> load(&slot.timed) + <uint64_t> load(&slot.timed_free)


cdef inline int64_t timed_in_flight(const SlotWords* slot) noexcept nogil:
    return timed_calls(slot) & ((1 << COUNT_BITS) - 1)


cdef inline int64_t in_flight(const SlotWords* slot) noexcept nogil:
    return timed_in_flight(slot) + load(&slot.streams)


cdef inline double mean_age_ns(const SlotWords* slot, int64_t now_ns) noexcept nogil:
    """Return how long the open timed calls have been open, on average; 0 if there are none.

    Mean age of n calls that started at s1..sn is (n now - (s1 + .. + sn)) / n: two integers tell it without a list
    (brpc, locality_aware_load_balancer.h). The sum of start times wraps, the sum of ages does not come near that.
    """
    cdef uint64_t packed = timed_calls(slot)
    cdef uint64_t count = packed & ((1 << COUNT_BITS) - 1)
    cdef uint64_t now = <uint64_t> now_ns >> UNIT_BITS
    cdef int64_t ages
    if count == 0:
        return 0.0
    ages = <int64_t> ((count * now << COUNT_BITS) - (packed - count)) >> COUNT_BITS
    return <double> (ages << UNIT_BITS) / <double> count if ages > 0 else 0.0


cdef inline int64_t timed_call(int64_t started_ns) noexcept nogil:
    """Return what one timed call adds to `timed`: one, and its start time above it."""
    return <int64_t> (((<uint64_t> started_ns >> UNIT_BITS) << COUNT_BITS) + 1)


cdef inline void count(word* held_word, word* free_word, int64_t value, bint held) noexcept nogil:
    if held:
        add_held(held_word, value)
    else:
        add(free_word, value)


cdef inline void open_call(SlotWords* slot, int64_t now_ns, bint stream, bint held) noexcept nogil:
    """Take on the debt of one pick; `held` tells whether the caller holds the GIL."""
    if stream:
        add(&slot.streams, 1)
    else:
        count(&slot.timed, &slot.timed_free, timed_call(now_ns), held)


cdef inline void observe_answer(SlotWords* slot, double elapsed_ns, int64_t now_ns, double rate) noexcept nogil:
    """Fold the latency of an answer into the peak EWMA: up at once, down with the decay time.

    Formula of finagle's PeakEwma. Two threads that finish at the same moment may lose one of their two samples.
    """
    cdef int64_t stamp = load(&slot.stamp_ns)
    cdef double latency = load_double(&slot.latency_ns)
    cdef double kept
    if stamp <= 0 or elapsed_ns >= latency:
        latency = elapsed_ns
    else:
        kept = faded(now_ns - stamp, rate)
        latency = latency * kept + elapsed_ns * (1.0 - kept)
    store_double(&slot.latency_ns, latency)
    store(&slot.stamp_ns, now_ns if now_ns > 0 else 1)


cdef inline void observe_bound(SlotWords* slot, double elapsed_ns, int64_t now_ns, double rate) noexcept nogil:
    """Take the time a call was waited for in vain as a lower bound: it may raise the estimate, never lower it."""
    cdef int64_t stamp = now_ns if now_ns > 0 else 1
    if elapsed_ns <= projected_ns(slot, now_ns, rate):
        return
    store_double(&slot.latency_ns, elapsed_ns)
    store(&slot.stamp_ns, -stamp if is_newcomer(slot) else stamp)


cdef inline void close_call(
    SlotWords* slot, int outcome, int64_t started_ns, int64_t now_ns, double rate, bint stream, bint held
) noexcept nogil:
    """Settle the debt of one pick, made at `started_ns` by `open_call`; `stream` and `held` must be what they were there."""
    cdef int64_t elapsed_ns = now_ns - started_ns
    if stream:
        add(&slot.streams, -1)
    else:
        count(&slot.timed, &slot.timed_free, -timed_call(started_ns), held)
        if elapsed_ns < 1:  # a clock that stands still, or steps back
            elapsed_ns = 1
        if outcome == SUCCESS:
            observe_answer(slot, <double> elapsed_ns, now_ns, rate)
        elif outcome != DROPPED:
            observe_bound(slot, <double> elapsed_ns, now_ns, rate)
            if outcome == TIMED_OUT:
                add(&slot.timed_out, 1)
    if outcome == SUCCESS:
        store(&slot.alive_ns, now_ns)
        count(&slot.successes, &slot.successes_free, 1, held)
    elif outcome == FAILURE or outcome == TIMED_OUT:
        store(&slot.answered_ns, now_ns if outcome == FAILURE else last_answer_ns(slot))
        store(&slot.alive_ns, 0)
        add(&slot.failures, 1)
    else:
        add(&slot.unjudged, 1)


cdef class Slot:
    cdef SlotWords* words
    cdef object __weakref__
