"""Prequal: the least latency among those whose calls in flight are not too many, as servers tell them.

B. Wydrowski, R. Kleinberg, S. Rumble, A. Archer, "Load is not what you should balance: introducing Prequal" (NSDI
2024). What servers tell of their calls in flight and of their latency is pooled. An entry is hot if its calls in flight
are above a quantile of those of the last reports; the cold entry with the least latency is taken, and where all are
hot, the one with the fewest calls in flight. What is different here:

    reports come with the answers of      so there are no probes for each call; the balancer asks those that were not
    our own calls                         heard of for a while, and reports are what removals are counted by
    our own calls in flight are known     so they are counted as they come and go, where the paper adds one for each
                                          that goes; what a report adds is the calls of others
    an endpoint is in the pool once       its last report replaces the one before
    the pool may hold the whole set       the paper's, which has room for half of it, would leave small sets to chance;
                                          where nobody else calls, a report is not used up
    few calls are never hot               of four servers with hardly a call, having one would be reason enough to go
                                          to the slow one
    failures                              a server that fails at once has few calls and low latencies, and would get
                                          all: its reports are not believed for a while
    whoever is not heard of               gets a call now and then, where it cannot be asked
    without two entries                   the fewer calls of our own in flight, of two draws, where the paper takes
                                          anyone: without reports, this is `least_request`
    weights                               calls in flight are counted for each mean weight

Threads without the GIL share the pool by a lock that nobody waits for: who does not get it chooses by its own calls.
"""

cimport cython
from libc.math cimport INFINITY, ceil
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from grpclb_core.native.atomics cimport load, load_double, store, try_lock, unlock
from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.draws cimport below, draw
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport (
    Slot,
    SlotWords,
    failure_streak,
    in_flight,
    is_on_trial,
    is_waited_for,
    is_past,
    last_answer_ns,
)
from grpclb_core.native.view cimport Member, View, draw_column, draw_member, load_of

# Most calls that go by one report; prequal-rs has the same. The formula of the paper knows no bound for small sets.
MOST_USES = 16
cdef double MOST_USES_OF_ONE = MOST_USES

cdef enum:
    # Fewer entries are no choice (paper).
    FEWEST_POOLED = 2
    # Reports of an endpoint that fails call after call are left aside longer each time, up to so many times as long.
    MOST_STREAK = 4
    # A set that is no larger is looked at whole where both draws are in doubt; of a larger one, so many more are drawn.
    MOST_EXTRA_DRAWS = 8

# What an endpoint in doubt costs: more than any calls in flight.
cdef double DOUBTED = 1e15

cdef double NS_PER_S = 1e9
cdef double LONGEST_S = 1e9  # 31 years: any longer time is as good as that, and fits into 64 bits of nanoseconds

cdef const ClockScale* clock = clock_scale()


@cython.final
cdef class PrequalPicker(Picker):
    """Takes the endpoint with the least latency among those whose calls in flight are not too many, by their reports.

    Args:
        view: the endpoints to choose among.
        pool_size: most reports that are chosen among, from 2 to 64.
        q_rif: an endpoint is hot whose calls in flight are above that quantile of the last reports; 0 to go by calls
            in flight alone, 1 to go by latency alone.
        least_hot: an endpoint with no more calls in flight than that, for each mean weight, is not hot.
        delta: how much the pool grows, by the paper's formula for the reuse of reports.
        max_age_s: a report that is older is used no longer.
        probe_rate: reports for each call, those that come with answers included.
        remove_rate: entries for each call that are taken out of the pool, the oldest and the worst in turn.
        explore_s: an endpoint that was not heard of for so long, and has no call of ours, gets one when it is drawn.
        aversion_s: after a failed call an endpoint is left aside for so long; for a part of it, if other calls were
            answered since the failure before.
        decay_s: mean lifetime of the latency that is reported; the choice does not look at it.
        seed: makes the draws repeatable; None takes a seed from the system.
        now_ns: the time on the clock of the slots; None to read it. Reports that are fresh by then are in the pool.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, View view not None, *, pool_size=16, double q_rif=0.84, double least_hot=2.0, double delta=1.0,
        double max_age_s=1.0, double probe_rate=3.0, double remove_rate=0.5, double explore_s=5.0,
        double aversion_s=5.0, decay_s=10.0, seed=None, now_ns=None
    ) -> None:
        if self.doubts != NULL:
            raise ValueError("a picker keeps its view: make another one")
        super().__init__(view, decay_s=decay_s, seed=seed)
        if not FEWEST_POOLED <= pool_size <= MOST_POOLED:
            raise ValueError(f"pool_size is {pool_size!r}; use {<int> FEWEST_POOLED} to {<int> MOST_POOLED}")
        if not 0 <= q_rif <= 1:
            raise ValueError(f"q_rif is {q_rif!r}; use 0 to 1")
        if not max_age_s > 0:
            raise ValueError(f"max_age_s is {max_age_s!r}; use a number of seconds above 0")
        for name, number in (
            ("delta", delta), ("probe_rate", probe_rate), ("remove_rate", remove_rate), ("explore_s", explore_s),
            ("aversion_s", aversion_s), ("least_hot", least_hot),
        ):
            if not 0 <= number < INFINITY:
                raise ValueError(f"{name} is {number!r}; use 0 or more")
        self.pool_size = min(<uint32_t> pool_size, view.count)
        self.q_rif = q_rif
        self.least_hot = least_hot
        self.reuse_budget = reuse(<double> pool_size, <double> view.count, delta, probe_rate, remove_rate)
        # The pool of a small set holds all of it, and whoever is taken out would be without calls.
        self.removals = min(remove_rate / probe_rate, 1.0) if probe_rate > 0 and self.pool_size < view.count else 0.0
        self.max_age_ns = nanoseconds(max_age_s)
        self.explore_ns = nanoseconds(explore_s)
        self.aversion_ns = <double> nanoseconds(aversion_s)
        self.start(read_clock(clock) if now_ns is None else <int64_t> now_ns)

    def __dealloc__(self) -> None:
        free(self.doubts)

    @property
    def picks(self) -> int:
        """How often it has chosen."""
        return load(&self.chosen)

    def pooled_at(self, int64_t now_ns) -> int:
        """Return how many reports there are to choose among at the time `now_ns`."""
        cdef uint32_t place, good = 0
        if not try_lock(&self.lock):
            return 0
        for place in range(self.pooled):
            good += self.is_good(&self.pool[place], now_ns)
        unlock(&self.lock)
        return good

    def reported(self, Slot slot not None) -> None:
        """Pool the report that came into a slot, in place of the one before."""
        cdef object place = self.places.get(slot)
        if place is not None and load(&slot.words.reported_ns) > 0:
            self.admit(<uint32_t> place, load(&slot.words.reported_ns))

    cdef int start(self, int64_t now_ns) except -1:
        """Take over what the slots know: who is in doubt, and the reports that are fresh, the youngest of them."""
        cdef uint32_t member, count = self.view.count
        cdef const SlotWords* slot
        cdef Doubt* doubt
        self.built_ns = now_ns
        self.hot_above = hot_above_nobody(self.q_rif)
        self.places = {slot_of_place: place for place, slot_of_place in enumerate(self.view.slots)}
        self.doubts = <Doubt*> malloc(count * sizeof(Doubt))
        if self.doubts == NULL:
            raise MemoryError(f"no memory for {count} endpoints")
        for member in range(count):
            slot = self.view.members[member].slot
            doubt = &self.doubts[member]
            store(&doubt.failures, load(&slot.failures))
            store(&doubt.successes, successes(slot))
            store(&doubt.until_ns, last_answer_ns(slot) + self.aversion(failure_streak(slot)))
            if is_fresh(load(&slot.reported_ns), now_ns, self.max_age_ns) and not self.is_doubted(member, now_ns):
                if self.pooled == self.pool_size:
                    if self.pool[self.oldest_entry()].time_ns >= load(&slot.reported_ns):
                        continue
                    self.remove(self.oldest_entry())
                self.put(member)
        return 0

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        cdef uint32_t count = self.view.count
        cdef uint32_t first, chosen
        store(&self.chosen, load(&self.chosen) + 1)
        if count == 1:
            return 0
        first = draw_member(self.view.members, self.view.columns, count, &self.state)
        if self.is_unheard(self.view.members[first].slot, now_ns) and not self.is_doubted(first, now_ns):
            return self.choose_plainly(first, now_ns)
        chosen = self.choose_pooled(now_ns)
        return chosen if chosen < count else self.choose_plainly(first, now_ns)

    cdef bint is_unheard(self, const SlotWords* slot, int64_t now_ns) noexcept nogil:
        """Tell whether an endpoint that was drawn is to have a call though no report speaks for it.

        One that answers calls and never reports gets those for which it is drawn, its share; one that is new, or was
        silent for long, or is on trial, gets one.
        """
        cdef int64_t reported_ns = load(&slot.reported_ns)
        cdef int64_t answered_ns = last_answer_ns(slot)
        if is_on_trial(slot):
            return not is_waited_for(slot)
        if reported_ns == 0 and answered_ns > 0:
            return True
        # Each on its own, as one of the future says nothing: the clock stepped back.
        return in_flight(slot) == 0 and not (
            is_fresh(reported_ns, now_ns, self.explore_ns)
            or is_fresh(answered_ns, now_ns, self.explore_ns)
            or is_fresh(self.built_ns, now_ns, self.explore_ns)
        )

    cdef uint32_t choose_plainly(self, uint32_t first, int64_t now_ns) noexcept nogil:
        """Return who has fewer calls of our own in flight: the one drawn or another, or more if both are in doubt."""
        cdef uint32_t count = self.view.count
        cdef uint32_t turn, candidate, best = first
        cdef uint32_t draws = count if count < <uint32_t> MOST_EXTRA_DRAWS else <uint32_t> MOST_EXTRA_DRAWS
        cdef double cost, least = self.cost_of(first, now_ns)
        for turn in range(1, draws + 1):
            if turn > 1 and least < DOUBTED:
                break
            if self.view.columns != NULL:
                candidate = draw_column(self.view.columns, count, &self.state)
            elif count == draws and turn > 1:  # a small one is looked at in order, so that all of it is
                candidate = (first + turn) % count
            else:
                candidate = below(&self.state, count - 1, <uint32_t> (draw(&self.state) >> 32))
                candidate += candidate >= first
            cost = self.cost_of(candidate, now_ns)
            if cost < least:
                least = cost
                best = candidate
        return best

    cdef double cost_of(self, uint32_t member, int64_t now_ns) noexcept nogil:
        cdef const Member* drawn = &self.view.members[member]
        return load_of(drawn) + (DOUBTED if self.is_doubted(member, now_ns) or has_its_call(drawn.slot) else 0.0)

    # The pool

    cdef uint32_t choose_pooled(self, int64_t now_ns) noexcept nogil:
        """Return who is best by the pool; the count if there is no choice."""
        cdef uint32_t place, chosen = self.view.count
        cdef Entry* entry
        if not try_lock(&self.lock):
            return chosen
        place = self.best_of_pool(now_ns)
        if place < self.pooled:
            entry = &self.pool[place]
            chosen = entry.member
            if entry.others > 0 or self.pool_size < self.view.count:
                entry.uses -= 1
                if entry.uses == 0:
                    self.remove(place)
        unlock(&self.lock)
        return chosen

    cdef uint32_t best_of_pool(self, int64_t now_ns) noexcept nogil:
        """Throw out what is too old or in doubt; return the place of the best, or how many there are."""
        cdef uint32_t place = 0, good = 0, best = 0
        cdef Entry* entry
        cdef bint hot, best_is_hot = True
        while place < self.pooled:
            entry = &self.pool[place]
            if not self.is_good(entry, now_ns):
                self.remove(place)
                continue
            if not has_its_call(self.view.members[entry.member].slot):
                self.count(entry)
                hot = self.is_hot(entry)
                if good == 0 or is_better(entry, hot, &self.pool[best], best_is_hot):
                    best = place
                    best_is_hot = hot
                good += 1
            place += 1
        return best if good >= FEWEST_POOLED else self.pooled

    cdef bint is_good(self, const Entry* entry, int64_t now_ns) noexcept nogil:
        if not is_fresh(entry.time_ns, now_ns, self.max_age_ns):
            return False
        if entry.failures != load(&self.view.members[entry.member].slot.failures):
            self.is_doubted(entry.member, now_ns)  # so that the time of doubt begins now
            return False
        return True

    cdef void count(self, Entry* entry) noexcept nogil:
        """Find how many calls are in flight there by now: ours are known, those of others are as they were."""
        cdef const Member* member = &self.view.members[entry.member]
        entry.in_flight = <double> (entry.others + in_flight(member.slot)) * member.inverse_weight

    cdef bint is_hot(self, const Entry* entry) noexcept nogil:
        # A server that has not said what calls take is as good as any for one.
        return entry.in_flight > self.hot_above or (entry.latency_ns <= 0 and entry.in_flight > 0)

    cdef void admit(self, uint32_t member, int64_t now_ns) noexcept nogil:
        cdef uint32_t place
        if self.is_doubted(member, now_ns) or not try_lock(&self.lock):
            return
        for place in range(self.pooled):
            if self.pool[place].member == member:
                self.remove(place)
                break
        if self.pooled == self.pool_size:
            self.remove(self.oldest_entry())
        self.put(member)
        self.owed += self.removals
        if self.owed >= 1.0:
            self.owed -= 1.0
            if self.pooled > FEWEST_POOLED:
                self.remove(self.worst_entry() if self.worst_is_next else self.oldest_entry())
                self.worst_is_next = not self.worst_is_next
        unlock(&self.lock)

    cdef void put(self, uint32_t member) noexcept nogil:
        """Pool the report that is in the slot of a member; there is room."""
        cdef const Member* reporter = &self.view.members[member]
        cdef Entry* entry = &self.pool[self.pooled]
        cdef double budget = self.reuse_budget
        entry.member = member
        entry.others = max(load(&reporter.slot.reported_in_flight) - in_flight(reporter.slot), 0)
        entry.latency_ns = load_double(&reporter.slot.reported_latency_ns)
        entry.time_ns = load(&reporter.slot.reported_ns)
        entry.failures = load(&reporter.slot.failures)
        entry.uses = <uint32_t> budget
        # A budget between two whole numbers is one or the other, as often as makes it the mean.
        if <double> (draw(&self.state) >> 11) * 1.1102230246251565e-16 < budget - <double> entry.uses:
            entry.uses += 1
        self.pooled += 1
        self.count(entry)
        self.note(<double> load(&reporter.slot.reported_in_flight) * reporter.inverse_weight)

    cdef void note(self, double in_flight) noexcept nogil:
        """Take calls in flight into the distribution, in place of the oldest; find anew what is hot."""
        cdef uint32_t place
        cdef double leaving
        if self.known == RECENT:
            leaving = self.recent[self.oldest]
            place = 0
            while self.ordered[place] != leaving:
                place += 1
            while place + 1 < self.known:
                self.ordered[place] = self.ordered[place + 1]
                place += 1
            self.known -= 1
        self.recent[self.oldest] = in_flight
        self.oldest = (self.oldest + 1) % RECENT
        place = self.known
        while place > 0 and self.ordered[place - 1] > in_flight:
            self.ordered[place] = self.ordered[place - 1]
            place -= 1
        self.ordered[place] = in_flight
        self.known += 1
        if 0.0 < self.q_rif < 1.0:
            self.hot_above = max(self.ordered[<uint32_t> ceil(self.q_rif * self.known) - 1], self.least_hot)

    cdef void remove(self, uint32_t place) noexcept nogil:
        """Take an entry out; the others stay in the order in which they came, so that it tells who is oldest."""
        self.pooled -= 1
        while place < self.pooled:
            self.pool[place] = self.pool[place + 1]
            place += 1

    cdef uint32_t oldest_entry(self) noexcept nogil:
        """Return the place of the entry whose report is oldest; of several, the one that came first."""
        cdef uint32_t place, oldest = 0
        for place in range(1, self.pooled):
            if self.pool[place].time_ns < self.pool[oldest].time_ns:
                oldest = place
        return oldest

    cdef uint32_t worst_entry(self) noexcept nogil:
        """Return the place of the entry that would be chosen last."""
        cdef uint32_t place, worst = 0
        for place in range(1, self.pooled):
            if is_better(
                &self.pool[worst], self.is_hot(&self.pool[worst]), &self.pool[place], self.is_hot(&self.pool[place])
            ):
                worst = place
        return worst

    # Failures

    cdef bint is_doubted(self, uint32_t member, int64_t now_ns) noexcept nogil:
        """Tell whether calls failed there of late; whoever is on trial was doubted already, and is to prove itself."""
        cdef Doubt* doubt = &self.doubts[member]
        cdef int64_t failures = load(&self.view.members[member].slot.failures)
        cdef int64_t left_ns
        if failures != load(&doubt.failures):
            self.judge(member, failures, now_ns)
        if is_on_trial(self.view.members[member].slot):
            return False
        left_ns = load(&doubt.until_ns) - now_ns
        # More than it can be: the clock was set back.
        return 0 < left_ns <= self.aversion(MOST_STREAK)

    cdef void judge(self, uint32_t member, int64_t failures, int64_t now_ns) noexcept nogil:
        """Leave an endpoint aside for a while: for the less, the more calls it answered since the failure before."""
        cdef const SlotWords* slot = self.view.members[member].slot
        cdef Doubt* doubt = &self.doubts[member]
        cdef double failed = <double> (failures - load(&doubt.failures))
        cdef double answered = <double> (successes(slot) - load(&doubt.successes))
        cdef double part = failed / (failed + answered) if answered > 0 else 1.0
        store(&doubt.failures, failures)
        store(&doubt.successes, successes(slot))
        store(&doubt.until_ns, now_ns + <int64_t> (part * <double> self.aversion(max(1, failure_streak(slot)))))

    cdef int64_t aversion(self, int64_t streak) noexcept nogil:
        """Return for how long an endpoint is left aside after so many failures in a row."""
        return <int64_t> (self.aversion_ns * <double> min(streak, <int64_t> MOST_STREAK))


cdef inline double reuse(
    double pooled, double count, double delta, double probe_rate, double remove_rate
) noexcept nogil:
    """Return how many calls may go by one report, on average: the paper's budget, within what a small set needs.

    Where the pool has more room than for half of the set, or fewer reports come than go, its formula has no answer.
    """
    cdef double gain = (1.0 - min(pooled, 0.5 * count) / count) * probe_rate - remove_rate
    return min(max((1.0 + delta) / gain, 1.0), <double> MOST_USES_OF_ONE) if gain > 0 else <double> MOST_USES_OF_ONE


cdef inline double hot_above_nobody(double q_rif) noexcept nogil:
    """Return what is hot before anyone has reported; all, if latency is to have no say."""
    return -1.0 if q_rif <= 0 else INFINITY


cdef inline bint is_better(const Entry* one, bint one_is_hot, const Entry* other, bint other_is_hot) noexcept nogil:
    """Tell whether one entry goes before another: cold before hot, then by latency or by calls in flight."""
    if one_is_hot != other_is_hot:
        return other_is_hot
    if one_is_hot and one.in_flight != other.in_flight:
        return one.in_flight < other.in_flight
    if one.latency_ns != other.latency_ns:
        return one.latency_ns < other.latency_ns
    return one.in_flight < other.in_flight


cdef inline bint is_fresh(int64_t time_ns, int64_t now_ns, int64_t max_age_ns) noexcept nogil:
    """Tell whether a report can be used; not so if there is none, or it is of the future."""
    return time_ns > 0 and not is_past(now_ns - time_ns, <uint64_t> max_age_ns)


cdef inline bint has_its_call(const SlotWords* slot) noexcept nogil:
    """Tell whether an endpoint whose last call failed, or that is on trial, has one under way: it gets no other one."""
    return is_waited_for(slot) and (is_on_trial(slot) or failure_streak(slot) > 0)


cdef inline int64_t successes(const SlotWords* slot) noexcept nogil:
    return load(&slot.successes) + load(&slot.successes_free)


cdef inline int64_t nanoseconds(double seconds) noexcept nogil:
    return <int64_t> (min(seconds, LONGEST_S) * NS_PER_S)
