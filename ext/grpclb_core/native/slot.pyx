"""The mutable record of one endpoint, as Python sees it."""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport free

from grpclb_core.native.atomics cimport add, aligned_zeroed, load, load_double, store, store_double
from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.ewma cimport decay_rate
from grpclb_core.native.slot cimport (
    SlotWords,
    failure_streak,
    in_flight,
    is_newcomer,
    is_on_trial,
    is_waited_for,
    last_answer_ns,
    leave_open,
    mean_age_ns,
    projected_ns,
)


cdef const ClockScale* clock = clock_scale()


@cython.final
@cython.no_gc
cdef class Slot:
    """Counters of one endpoint identity; they outlive pickers, connections and short removals.

    Each property is one atomic reading, so two of them read one after the other need not agree.
    """

    def __cinit__(self) -> None:
        self.words = <SlotWords*> aligned_zeroed(sizeof(SlotWords))
        if self.words == NULL:
            raise MemoryError("no memory for a slot")
        self.words.owner = <void*> self

    def __dealloc__(self) -> None:
        free(self.words)

    @property
    def in_flight(self) -> int:
        """Calls picked and not finished yet."""
        return in_flight(self.words)

    @property
    def streams(self) -> int:
        """Those of the calls in flight that are streams."""
        return load(&self.words.streams)

    @property
    def is_waited_for(self) -> bool:
        """Whether a call is open that began since one was last answered, or a stream."""
        return is_waited_for(self.words)

    @property
    def successes(self) -> int:
        """Calls the server answered."""
        return load(&self.words.successes) + load(&self.words.successes_free)

    @property
    def failures(self) -> int:
        """Calls the server failed, or let time out."""
        return load(&self.words.failures)

    @property
    def unjudged(self) -> int:
        """Finished picks that say nothing of the server: cancelled by the caller, or never sent."""
        return load(&self.words.unjudged)

    @property
    def picks(self) -> int:
        """Times this endpoint was picked: the sum of the other four."""
        return in_flight(self.words) + self.successes + self.failures + self.unjudged

    @property
    def is_newcomer(self) -> bool:
        """Whether no timed call was answered yet, or too few to know the endpoint by."""
        return is_newcomer(self.words)

    @property
    def timed_out(self) -> int:
        """Timed calls whose deadline the server let pass; they are among the failures."""
        return load(&self.words.timed_out)

    @property
    def last_answer_ns(self) -> int:
        """When the endpoint last answered a call, well or badly; 0 if never."""
        return last_answer_ns(self.words)

    @property
    def failure_streak(self) -> int:
        """Failures since the last success."""
        return failure_streak(self.words)

    @property
    def is_on_trial(self) -> bool:
        """Whether the endpoint gets one call at a time until it has answered one well."""
        return is_on_trial(self.words)

    def start_trial(self) -> None:
        """Have the endpoint prove itself: one call at a time until one succeeds, beside those that are open now."""
        self.start_trial_at(read_clock(clock))

    def start_trial_at(self, int64_t now_ns) -> None:
        """Do as `start_trial` does at the time `now_ns`, on the clock the picks are made by."""
        leave_open(self.words, now_ns)
        if load(&self.words.alive_ns) > 0:
            store(&self.words.streak, 0)
        store(&self.words.answered_ns, last_answer_ns(self.words))
        store(&self.words.alive_ns, -1)

    def end_trial(self) -> None:
        """Take the endpoint for as good as any again, though it has not proven it."""
        if is_on_trial(self.words):
            store(&self.words.alive_ns, 0)

    def forget_latency(self) -> None:
        """Make the endpoint a newcomer again, because the server behind it may be another one now."""
        self.forget_latency_at(read_clock(clock))

    def forget_latency_at(self, int64_t now_ns) -> None:
        """Do as `forget_latency` does at the time `now_ns`, on the clock the picks are made by."""
        store(&self.words.stamp_ns, 0)
        store_double(&self.words.latency_ns, 0.0)
        store(&self.words.passed, 0)
        leave_open(self.words, now_ns)

    def latency_ns_at(self, now_ns: int, decay_s: float) -> float:
        """Return the latency estimate in ns, faded to `now_ns` with a mean lifetime of `decay_s`; 0.0 if unknown."""
        return projected_ns(self.words, now_ns, decay_rate(decay_s))

    def age_ns_at(self, now_ns: int) -> float:
        """Return the mean time in ns for which the open timed calls have been in flight at `now_ns`; 0.0 if none."""
        return mean_age_ns(self.words, now_ns)

    # What its load reports say

    @property
    def reported_weight(self) -> float:
        """What its load reports make its share of the calls, to be compared with other endpoints'; 0.0 if unknown."""
        return load_double(&self.words.weight)

    @property
    def weighed_ns(self) -> int:
        """When the report came that the weight is made of; 0 if none did."""
        return load(&self.words.weighed_ns)

    @property
    def weighed_since_ns(self) -> int:
        """Since when the endpoint has had a weight without a break; 0 if it has none."""
        return load(&self.words.weighed_since_ns)

    def report_weight_at(self, double weight, int64_t now_ns) -> None:
        """Take in a weight that a load report of `now_ns` makes."""
        if load(&self.words.weighed_since_ns) == 0:
            store(&self.words.weighed_since_ns, now_ns if now_ns > 0 else 1)
        store(&self.words.weighed_ns, now_ns)
        store_double(&self.words.weight, weight)

    def forget_weight(self) -> None:
        """Let go of the weight, because it is too old, or of a server that may be another one now."""
        store(&self.words.weighed_since_ns, 0)
        store_double(&self.words.weight, 0.0)

    @property
    def reported_ns(self) -> int:
        """When the last load report came that was believed; 0 if none did."""
        return load(&self.words.reported_ns)

    @property
    def reported_in_flight(self) -> int:
        """Calls in flight at the server as it told last, those of all clients."""
        return load(&self.words.reported_in_flight)

    @property
    def reported_latency_ns(self) -> float:
        """What calls took at the server at that many in flight, in ns."""
        return load_double(&self.words.reported_latency_ns)

    def report_load_at(self, int64_t in_flight, double latency_ns, int64_t now_ns) -> None:
        """Take in how many calls the server had in flight at `now_ns`, and what they took there."""
        store(&self.words.reported_in_flight, in_flight)
        store_double(&self.words.reported_latency_ns, latency_ns)
        store(&self.words.reported_ns, now_ns if now_ns > 0 else 1)

    @property
    def ignored_reports(self) -> int:
        """Load reports that could not be believed."""
        return load(&self.words.ignored_reports)

    def ignore_report(self) -> None:
        """Count a load report that could not be believed."""
        add(&self.words.ignored_reports, 1)
