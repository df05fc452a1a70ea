"""The mutable record of one endpoint, as Python sees it."""

cimport cython
from libc.stdlib cimport free

from grpclb_core.native.atomics cimport aligned_zeroed, load, store, store_double
from grpclb_core.native.ewma cimport decay_rate
from grpclb_core.native.slot cimport SlotWords, in_flight, is_newcomer, last_answer_ns, mean_age_ns, projected_ns


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
        """Whether no timed call was answered yet."""
        return is_newcomer(self.words)

    @property
    def timed_out(self) -> int:
        """Timed calls whose deadline the server let pass; they are among the failures."""
        return load(&self.words.timed_out)

    @property
    def last_answer_ns(self) -> int:
        """When the endpoint last answered a call, well or badly; 0 if never."""
        return last_answer_ns(self.words)

    def forget_latency(self) -> None:
        """Make the endpoint a newcomer again, because the server behind it may be another one now."""
        store(&self.words.stamp_ns, 0)
        store_double(&self.words.latency_ns, 0.0)

    def latency_ns_at(self, now_ns: int, decay_s: float) -> float:
        """Return the peak-EWMA latency in ns, faded to `now_ns` with a mean lifetime of `decay_s`; 0.0 if unknown."""
        return projected_ns(self.words, now_ns, decay_rate(decay_s))

    def age_ns_at(self, now_ns: int) -> float:
        """Return the mean time in ns for which the open timed calls have been in flight at `now_ns`; 0.0 if none."""
        return mean_age_ns(self.words, now_ns)
