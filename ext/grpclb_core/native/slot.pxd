"""The mutable record of one endpoint: four cache lines of atomic words, of which a pick reads one.

Who writes what: `open_call` at a pick, `close_call` when its ticket is finished, `Slot.forget_latency` when the
connection was made anew, `Slot.start_trial`. Reading never writes.
Calls whose length says something of the server (unary) are timed; streams are counted, not timed.
"""

from libc.math cimport INFINITY
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t

from grpclb_core.native.atomics cimport add, add_held, load, load_double, store, store_double, word
from grpclb_core.native.ewma cimport faded


cdef enum Outcome:  # the numbers of grpclb_core.types.Outcome
    SUCCESS = 0
    FAILURE = 1
    CANCELLED = 2
    DROPPED = 3
    TIMED_OUT = 4
    UNAVAILABLE = 5
    RATE_LIMITED = 6


cdef extern from *:
    """
    /* Layout of SlotWords.timed. 2^20 open calls are past what one endpoint can hold; the 44 bits above them wrap after
     * 208 days of 1.024 us, and only their difference to now is ever used. */
    #define GRPCLB_COUNT_BITS 20
    #define GRPCLB_UNIT_BITS 10
    /* 5 ms: an endpoint that is called more often than that is busy, and looking would cost it; for one that is called
     * less often the look costs next to nothing. */
    #define GRPCLB_ALIVE_NS 5000000
    /* A server with ten times the latency gives a good answer once in four times (GOOD_MEANS); three in a row, once in
     * sixty. */
    #define GRPCLB_PROBES_TO_PASS 3
    /* A probe is good if it took no longer than that many means of a typical server. Of answers that are exponentially
     * spread 95 of 100 do, and one in four of a server that takes ten times as long. */
    #define GRPCLB_GOOD_MEANS 3.0
    /* An endpoint that takes that many times what is typical is slow: one that is closer gets calls without probes. */
    #define GRPCLB_SLOW 2.0
    /* The mean of so many exponential answers is within a fifth of the truth, 95 times of 100. */
    #define GRPCLB_MOST_SAMPLES 100
    #define GRPCLB_LEAST_SHARE 0.01
    /* The mean of fewer answers tells little, and what their peak is to it nothing. */
    #define GRPCLB_FEWEST_SAMPLES 10
    /* 1 ms, a thousand times the time between two readings of a call, and nothing to what it is added to. */
    #define GRPCLB_CLOCK_SLACK_NS 1000000
    /* In what is typical. Two calls in flight on everybody else, and the one that fails is still dearer by far. */
    #define GRPCLB_LEAST_PENALTY 10.0
    """
    const int64_t ALIVE_NS "GRPCLB_ALIVE_NS"
    const int64_t CLOCK_SLACK_NS "GRPCLB_CLOCK_SLACK_NS"
    const double GOOD_MEANS "GRPCLB_GOOD_MEANS"
    const double SLOW "GRPCLB_SLOW"
    const double LEAST_SHARE "GRPCLB_LEAST_SHARE"
    const double LEAST_PENALTY "GRPCLB_LEAST_PENALTY"
    enum:
        FEWEST_SAMPLES "GRPCLB_FEWEST_SAMPLES"
        MOST_SAMPLES "GRPCLB_MOST_SAMPLES"
        PROBES_TO_PASS "GRPCLB_PROBES_TO_PASS"
        COUNT_BITS "GRPCLB_COUNT_BITS"
        UNIT_BITS "GRPCLB_UNIT_BITS"


# Two words are kept twice, for those who count under the GIL and for those who count without it. Under the GIL nobody
# else is counting, so no locked instruction is needed; it is the sum of both that means something.
cdef struct SlotWords:
    # What a pick reads, and what the calls from Python write
    word timed  # open timed calls: their number in the low bits, the sum of their start times above (open_call)
    word timed_free  # the same, counted without the GIL
    word streams  # open calls that are not timed
    word latency_ns  # the estimate as it stood at `stamp_ns` (observe_answer); a double
    word stamp_ns  # of when the estimate is; 0 or less while there was no answer (is_newcomer)
    word left_open  # what is still open of what was at `left_ns`, as `timed` counts it (begun_calls)
    word alive_ns  # time of the last success; 0 after a failure (is_surely_alive), -1 on trial (is_on_trial)
    void* owner  # the Slot, borrowed; found here, a pick need not look it up elsewhere in memory
    # What an ordinary pick does not read
    word successes
    word peak_ns  # peak EWMA of the answers alone, as it stood at the last one; a double
    word mean_ns  # mean latency of the last answers; a double
    word samples  # how many those are, up to MOST_SAMPLES
    word passed  # good answers in a row, of a newcomer or to probes, while it takes more of them (is_probe_news)
    word successes_free  # counted without the GIL
    word left_ns  # time of the last timed success, or since when its connection or its trial is
    word answered_ns  # time of the last answer before `alive_ns` was last set to 0 (last_answer_ns)
    # What its load reports say
    word weight  # what they make its share of the calls; a double
    word weighed_since_ns  # since when it has such a weight without a break; 0 while it has none
    word weighed_ns  # time of the report that `weight` was made of
    word reported_ns  # time of the last report that was believed; 0 while there was none
    word reported_in_flight
    word reported_latency_ns  # what calls took there at that many in flight; a double
    word ignored_reports  # reports that could not be believed
    word timed_out  # timed calls whose deadline the server let pass
    # The rest
    word failures
    word streak  # failures in a row, good while the last call failed (failure_streak)
    word unjudged  # finished picks that were neither successes nor failures: cancelled, or never sent


cdef struct Learning:
    # How a picker has its calls change what is known of their endpoints
    double rate  # halvings per ns of the latency estimate
    word cap_ns  # the most that one answer counts for; a double, infinite where nothing is known
    word typical_ns  # what an estimate is in this fleet; a double, 0 while nothing is known
    word mean_ns  # the mean latency of a typical endpoint; a double, 0 while nothing is known
    word spread  # how many means the peaks of this fleet are; a double, 1 or more, 0 while nothing is known
    word lift  # the same, or 0 where estimates go by peaks alone
    uint64_t stale_ns  # an estimate that no answer came to for so long is changed by probes (is_probe_news)
    double failure_ns  # a failed call counts as one that took so long; 0 to take it for what it took
    double unavailable_ns
    double rate_limited_ns
    double most_hint_ns  # the longest that a server's wish to be left alone is granted; 0 to grant none


cdef inline Learning plain_learning(double rate) noexcept nogil:
    """Return how bare peak EWMA learns: every answer, at whatever it took, and failures by their length alone."""
    cdef Learning learning
    learning.rate = rate
    store_double(&learning.cap_ns, INFINITY)
    store_double(&learning.typical_ns, 0.0)
    store_double(&learning.mean_ns, 0.0)
    store_double(&learning.spread, 0.0)
    store_double(&learning.lift, 0.0)
    learning.stale_ns = UINT64_MAX
    learning.failure_ns = learning.unavailable_ns = learning.rate_limited_ns = 0.0
    learning.most_hint_ns = 0.0
    return learning


cdef inline bint is_newcomer(const SlotWords* slot) noexcept nogil:
    """Tell whether the endpoint has answered no timed call yet, or too few to know it by (introduce).

    Those, and calls that ended without an answer, may have left a lower bound of its latency; then `stamp_ns` is the
    negative of the time when that was learnt.
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


cdef inline bint is_on_trial(const SlotWords* slot) noexcept nogil:
    """Tell whether the endpoint has to answer a call well before it may have two at a time."""
    return load(&slot.alive_ns) < 0


cdef inline int64_t failure_streak(const SlotWords* slot) noexcept nogil:
    """Return how many calls failed since the last success: a success is told by `alive_ns`, and writes no more."""
    return 0 if load(&slot.alive_ns) > 0 else load(&slot.streak)


cdef inline int64_t last_answer_ns(const SlotWords* slot) noexcept nogil:
    """Return when the endpoint last answered a call, well or badly; 0 if never.

    A success is told by `alive_ns` alone, so that the common case pays for one word.
    """
    return max(load(&slot.alive_ns), load(&slot.answered_ns))


cdef inline uint64_t timed_calls(const SlotWords* slot) noexcept nogil:
    return <uint64_t> load(&slot.timed) + <uint64_t> load(&slot.timed_free)


cdef inline int64_t number_of(uint64_t timed) noexcept nogil:
    return timed & ((1 << COUNT_BITS) - 1)


cdef inline int64_t timed_in_flight(const SlotWords* slot) noexcept nogil:
    return number_of(timed_calls(slot))


cdef inline uint64_t begun_calls(const SlotWords* slot) noexcept nogil:
    """Return the open timed calls that began since one was last answered, as `timed_calls` tells of all.

    Those that were open before say nothing of how the server is now: while others are answered, a call that stays open
    is a long one, or it is on the connection before. Where threads meet, `left_open` may name one that has ended too.
    """
    cdef uint64_t begun = timed_calls(slot) - <uint64_t> load(&slot.left_open)
    return begun if number_of(begun) < 1 << (COUNT_BITS - 1) else 0


cdef inline void leave_open(SlotWords* slot, int64_t now_ns) noexcept nogil:
    """Look no more at how long the calls take that are open now."""
    store(&slot.left_open, <int64_t> timed_calls(slot))
    store(&slot.left_ns, now_ns)


cdef inline int64_t in_flight(const SlotWords* slot) noexcept nogil:
    return timed_in_flight(slot) + load(&slot.streams)


cdef inline bint is_waited_for(const SlotWords* slot) noexcept nogil:
    """Tell whether a call is open of which it is not known yet what becomes of those made now."""
    return number_of(begun_calls(slot)) + load(&slot.streams) > 0


cdef inline bint is_busy_trial(const SlotWords* slot) noexcept nogil:
    return is_on_trial(slot) and is_waited_for(slot)


cdef inline int64_t ages_ns(uint64_t timed, int64_t now_ns) noexcept nogil:
    """Return how long open timed calls have been open, all added up: those of `timed_calls`, or of `begun_calls`.

    Of n calls that started at s1..sn this is n now - (s1 + .. + sn): two integers tell it without a list (brpc,
    locality_aware_load_balancer.h). The sum of start times wraps, the sum of ages does not come near that.
    """
    cdef uint64_t count = timed & ((1 << COUNT_BITS) - 1)
    cdef uint64_t now = <uint64_t> now_ns >> UNIT_BITS
    return (<int64_t> ((count * now << COUNT_BITS) - (timed - count)) >> COUNT_BITS) << UNIT_BITS


cdef inline double mean_age_ns(const SlotWords* slot, int64_t now_ns) noexcept nogil:
    """Return how long the open timed calls have been open, on average; 0 if there are none."""
    cdef uint64_t timed = timed_calls(slot)
    cdef uint64_t count = timed & ((1 << COUNT_BITS) - 1)
    cdef int64_t ages = ages_ns(timed, now_ns)
    return <double> ages / <double> count if ages > 0 and count > 0 else 0.0


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


cdef inline bint is_past(int64_t age_ns, uint64_t limit_ns) noexcept nogil:
    """Tell whether an age is above a limit, or below 0 because the clock was set back; UINT64_MAX is no limit.

    Threads that meet may read the clock in another order than they write, which is no setting back.
    """
    return <uint64_t> (age_ns + CLOCK_SLACK_NS) > limit_ns


cdef inline void begin_estimate(
    SlotWords* slot, double peak_ns, int64_t samples, int64_t now_ns, const Learning* learning
) noexcept nogil:
    """Take an endpoint for one whose answers have that peak, and the mean that goes with it in this fleet."""
    store_double(&slot.peak_ns, peak_ns)
    store_double(&slot.mean_ns, peak_ns / max(load_double(&learning.spread), 1.0))
    store(&slot.samples, samples)
    store_double(&slot.latency_ns, peak_ns)
    store(&slot.stamp_ns, now_ns if now_ns > 0 else 1)


cdef inline bint is_probe_news(
    SlotWords* slot, double elapsed_ns, int64_t now_ns, const Learning* learning
) noexcept nogil:
    """Take in a good answer of an endpoint that was left alone for long; tell whether it was one.

    One good answer is luck, where a slow server answers fast now and then. After a few in a row the endpoint is taken
    back, as one of its fleet and not as the best of it. Until then its estimate stays as old as it is, so that the next
    probe comes at once.
    """
    cdef double typical_ns = load_double(&learning.typical_ns)
    cdef int64_t passed = load(&slot.passed) + 1
    if elapsed_ns > min(typical_ns, GOOD_MEANS * load_double(&learning.mean_ns)):
        store(&slot.passed, 0)
        return False
    store(&slot.passed, passed if passed < PROBES_TO_PASS else 0)
    if passed >= PROBES_TO_PASS:
        # The half is for a fleet that became faster as a whole.
        elapsed_ns = max(elapsed_ns, min(typical_ns, 0.5 * load_double(&slot.latency_ns)))
        begin_estimate(slot, elapsed_ns, passed, now_ns, learning)
    return True


cdef inline void introduce(SlotWords* slot, double elapsed_ns, int64_t now_ns, const Learning* learning) noexcept nogil:
    """Take in an answer of a newcomer.

    Where others are known it stays one for a few answers, one at a time, of which the slowest counts, and what is
    typical if that is more: after a lucky one, a server that is slow at its start would look like the fastest of all,
    and everybody would go there.
    """
    cdef double typical_ns = load_double(&learning.typical_ns)
    cdef int64_t passed = load(&slot.passed) + 1
    cdef double slowest_ns = elapsed_ns if passed <= 1 else max(elapsed_ns, load_double(&slot.latency_ns))
    if passed < PROBES_TO_PASS and typical_ns > 0:
        store(&slot.passed, passed)
        store_double(&slot.latency_ns, slowest_ns)
        store(&slot.stamp_ns, -now_ns if now_ns > 0 else -1)
        return
    store(&slot.passed, 0)
    begin_estimate(slot, max(slowest_ns, typical_ns), passed, now_ns, learning)


cdef inline void observe_answer(
    SlotWords* slot, double elapsed_ns, int64_t now_ns, const Learning* learning
) noexcept nogil:
    """Fold the latency of an answer into the estimate.

    That is a peak EWMA, up at once and down with the decay time (finagle's PeakEwma), but no less than what peaks are
    in this fleet where the mean is that of this endpoint. The peak is quick to tell that something is wrong, the mean
    is slow to be misled: of two servers alike one has had the heavier call lately. Penalties are in the estimate alone.
    Two threads that finish at the same moment may lose one of their two samples.
    """
    cdef int64_t stamp = load(&slot.stamp_ns)
    cdef int64_t asked_ns = now_ns - <int64_t> elapsed_ns
    cdef double taken_ns = min(elapsed_ns, load_double(&learning.cap_ns))
    cdef double slow_ns = SLOW * load_double(&learning.typical_ns)
    cdef double latency_ns = load_double(&slot.latency_ns)
    cdef double peak_ns = load_double(&slot.peak_ns), mean_ns = load_double(&slot.mean_ns)
    cdef int64_t samples = load(&slot.samples), heard_ns = now_ns
    cdef double lift = load_double(&learning.lift) if samples >= FEWEST_SAMPLES else 0.0
    cdef bint is_penalty = latency_ns > max(peak_ns, mean_ns * lift)  # more than answers account for
    cdef double kept, share
    if stamp <= 0:
        introduce(slot, taken_ns, now_ns, learning)
        return
    if is_past(now_ns - stamp, learning.stale_ns):
        if is_probe_news(slot, taken_ns, now_ns, learning):
            return
        if 0 < slow_ns < elapsed_ns and stamp < asked_ns:
            heard_ns = asked_ns  # a slow answer tells of when it was asked for
    kept = faded(now_ns - stamp, learning.rate)
    samples = min(samples + 1, MOST_SAMPLES)
    peak_ns = max(taken_ns, peak_ns * kept + taken_ns * (1.0 - kept))
    share = LEAST_SHARE if samples >= MOST_SAMPLES else 1.0 / <double> samples  # a division is what all the rest takes
    mean_ns += (taken_ns - mean_ns) * max(1.0 - kept, share)
    store_double(&slot.peak_ns, peak_ns)
    store_double(&slot.mean_ns, mean_ns)
    store(&slot.samples, samples)
    latency_ns = latency_ns * kept + taken_ns * (1.0 - kept) if is_penalty else 0.0
    store_double(&slot.latency_ns, max(max(peak_ns, mean_ns * lift), latency_ns))
    store(&slot.stamp_ns, heard_ns if heard_ns > 0 else 1)


cdef inline void observe_bound(SlotWords* slot, double elapsed_ns, int64_t now_ns, double rate) noexcept nogil:
    """Take the time a call was waited for in vain as a lower bound: it may raise the estimate, never lower it."""
    cdef int64_t stamp = now_ns if now_ns > 0 else 1
    if elapsed_ns <= projected_ns(slot, now_ns, rate):
        return
    store_double(&slot.latency_ns, elapsed_ns)
    store(&slot.stamp_ns, -stamp if is_newcomer(slot) else stamp)


cdef inline bint is_failure(int outcome) noexcept nogil:
    return outcome == FAILURE or outcome >= TIMED_OUT


cdef inline double penalty_ns(int outcome, const Learning* learning) noexcept nogil:
    """Return how long a failed call is taken to have lasted: else a server that fails at once looks like a fast one.

    Never less than several times what is typical, as there are services that take seconds: by their means, for
    estimates have penalties in them.
    """
    cdef double penalty = learning.failure_ns
    cdef double least_ns = LEAST_PENALTY * load_double(&learning.spread) * load_double(&learning.mean_ns)
    if outcome == UNAVAILABLE:
        penalty = learning.unavailable_ns
    elif outcome == RATE_LIMITED:
        penalty = learning.rate_limited_ns
    return max(penalty, least_ns) if penalty > 0 else 0.0


cdef inline void count_failure(SlotWords* slot, int outcome, int64_t now_ns, bint stream) noexcept nogil:
    cdef int64_t alive = load(&slot.alive_ns)
    store(&slot.streak, 1 if alive > 0 else load(&slot.streak) + 1)
    if load(&slot.passed) > 0:
        store(&slot.passed, 0)  # it is not on its way back, or no longer about to be known
    store(&slot.answered_ns, last_answer_ns(slot) if outcome == TIMED_OUT else now_ns)
    if alive > 0:  # who is on trial stays so
        store(&slot.alive_ns, 0)
    add(&slot.failures, 1)
    if outcome == TIMED_OUT and not stream:
        add(&slot.timed_out, 1)


cdef inline void close_call(
    SlotWords* slot, int outcome, int64_t started_ns, int64_t now_ns, const Learning* learning, bint stream, bint held,
    double hint_ns=0.0
) noexcept nogil:
    """Settle the debt of one pick, made at `started_ns` by `open_call`; `stream` and `held` must be what they were there.

    `hint_ns` is how long the server of a failed call asked to be left alone.
    """
    cdef int64_t elapsed_ns = now_ns - started_ns
    cdef double bound_ns
    if stream:
        add(&slot.streams, -1)
    else:
        count(&slot.timed, &slot.timed_free, -timed_call(started_ns), held)
        if outcome == SUCCESS:
            leave_open(slot, now_ns)
        elif started_ns < load(&slot.left_ns) and number_of(<uint64_t> load(&slot.left_open)) > 0:
            add(&slot.left_open, -timed_call(started_ns))
        if elapsed_ns < 1:  # a clock that stands still, or steps back
            elapsed_ns = 1
    if outcome == SUCCESS:
        if not stream:
            observe_answer(slot, <double> elapsed_ns, now_ns, learning)
        elif load(&slot.stamp_ns) < 0 and load(&slot.alive_ns) <= 0:
            # Streams are not timed, so that nothing else would end what a failure left with an endpoint of streams alone.
            store_double(&slot.latency_ns, 0.0)
            store(&slot.stamp_ns, 0)
        store(&slot.alive_ns, now_ns if now_ns > 0 else 1)
        count(&slot.successes, &slot.successes_free, 1, held)
        return
    bound_ns = 0.0 if stream or outcome == DROPPED else <double> elapsed_ns
    if is_failure(outcome):
        count_failure(slot, outcome, now_ns, stream)
        bound_ns = max(bound_ns, penalty_ns(outcome, learning), min(hint_ns, learning.most_hint_ns))
    else:
        add(&slot.unjudged, 1)
    observe_bound(slot, bound_ns, now_ns, learning.rate)


cdef class Slot:
    cdef SlotWords* words
    cdef object __weakref__
