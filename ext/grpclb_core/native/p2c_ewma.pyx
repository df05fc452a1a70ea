"""Power of two choices over peak EWMA, and what keeps it right where a fleet misbehaves.

The bare choice is latency x load of two draws. Each further rule mends one way in which that goes wrong:

    failed calls count for their penalty      a server that fails at once would look like the fastest
    age of the calls begun since an answer    a server that hangs would keep the latency it had
    cap on the peak                           one slow answer would exile its server for a minute
    floor under faded estimates               a slow server left alone would come to look faster than any
    probes                                    who loses every comparison would not be heard of again
    widening                                  two draws of a small fleet both fall on its bad half too often
    what is alike                             of equals, whose last call was heavy would lose to whose was light

What is typical of the fleet is found by a survey of a few members every 10 ms, by whoever picks then.
"""

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t

from grpclb_core.native.atomics cimport load, load_double, replace, store, store_double
from grpclb_core.native.draws cimport below, draw, draw_pair, draws_since, mix
from grpclb_core.native.ewma cimport MOST_HALVINGS, decay_rate, faded, halved
from grpclb_core.native.slot cimport (
    CLOCK_SLACK_NS,
    FEWEST_SAMPLES,
    SLOW,
    SlotWords,
    ages_ns,
    begun_calls,
    failure_streak,
    is_newcomer,
    is_past,
    last_answer_ns,
    number_of,
    projected_ns,
    timed_in_flight,
)
from grpclb_core.native.view cimport Member, View, draw_column, draw_member, load_of

# What a newcomer with a call in flight costs: more than any latency (39 hours), so that it gets one probe and then
# nothing until it answers. finagle's penalty, Long.MaxValue >> 16.
cdef double UNANSWERED_NS = 140737488355328.0

# Part of a latency that may be nothing, and far below any that is real: where all are new, what is left of their costs
# is the calls in flight.
cdef double LEAST_NS = 1e-290

cdef enum:
    # A survey costs two to four microseconds; once in 10 ms that is next to nothing, and a fleet changes no faster.
    SURVEY_NS = 10_000_000
    # The quartile of 64 draws is within a ninth of the fleet's own ranks, 95 times of 100.
    SURVEYED = 64
    # The share of all picks that may go to probes: one of 300, as a hundredth would show in the 99th percentile, and a
    # probe that is good brings two more. Where calls are rare a probe is due in time all the same, but no more than one
    # of 18 picks is.
    PICKS_BETWEEN_PROBES = 300
    FEWEST_PICKS_BETWEEN_PROBES = 18
    # An endpoint whose last call failed would cost a caller an error, so it waits for its turn longer.
    PICKS_BETWEEN_FAILURES = 256
    # It waits that many times as long when that call failed too,
    AFTER_ANOTHER = 4
    # and longer still if it does not answer at all, as a call there costs its whole deadline.
    DEADLINE_IN_FAILURES = 4
    # Pickers that are replaced often never see that many picks; a call in 10 s is one of 200 where there are 20 a second.
    FAILURE_WAIT_NS = 10_000_000_000
    LONGEST_WAIT = 8  # the same for slow endpoints, in probe_s
    # A set that is no larger is looked at whole where two draws were bad; of a larger one, so many more are drawn.
    MOST_EXTRA_DRAWS = 8

# 19 years, and there is room for LONGEST_WAIT above it.
cdef double MOST_PROBE_NS = 6e17

# An estimate below that many times what is typical is taken as it faded, without a look at the floor: if it fades to
# nothing, that brings its endpoint one call, and is over.
cdef double FLOOR_MATTERS = 2.0

# How long a fleet is remembered to have had heavy calls: long against the time between two of them, and no longer than
# somebody would watch it for.
cdef double SPREAD_LASTS_S = 60.0

# A larger spread is that of a start. With this one, what takes five times as long still counts as equal.
cdef double MOST_SPREAD = 20.0


@cython.final
cdef class P2cEwmaPicker(Picker):
    """Draws two endpoints and takes the one with less peak-EWMA latency x (1 + calls in flight / weight).

    Args:
        view: the endpoints to choose among.
        decay_s: mean lifetime of a latency sample in seconds.
        seed: makes the draws repeatable; None takes a seed from the system.
        failure_s: a failed call counts as one that took so long; 0 to take it for what it took. `unavailable_s` and
            `rate_limited_s` are the same for those classes of failures.
        pushback_s: the longest that a server's wish to be left alone is granted; 0 to grant none.
        age_factor: calls in flight whose mean age is past that many estimates stand in for it; 0 to take no notice.
        peak_cap: one answer counts for no more than that many times the mean of a typical endpoint; 0 for no cap.
        floor: no estimate fades below the least of the fleet.
        probe_s: an endpoint that is left alone because it is slow is tried again after so long; 0 to leave it.
        widen_factor: where the better of two draws is slower than that many times what is typical, more are drawn; 0
            for never.
        stream_weight: what an open stream counts for, where a call counts for 1.
        alike_factor: estimates that differ by no more than 1 + that many times the spread of the fleet count as equal;
            0 to take each peak at its word.

    Raises:
        ValueError: `decay_s` is not above 0.
    """

    def __init__(
        self, View view not None, *, decay_s=10.0, seed=None, double failure_s=0.0, double unavailable_s=0.0,
        double rate_limited_s=0.0, double pushback_s=0.0, double age_factor=0.0, double peak_cap=0.0, bint floor=False,
        double probe_s=0.0, double widen_factor=0.0, double stream_weight=1.0, double alike_factor=0.0
    ) -> None:
        super().__init__(view, decay_s=decay_s, seed=seed)
        self.learning.failure_ns = failure_s * 1e9
        self.learning.unavailable_ns = unavailable_s * 1e9
        self.learning.rate_limited_ns = rate_limited_s * 1e9
        self.learning.most_hint_ns = pushback_s * 1e9
        self.has_probes = probe_s > 0
        self.probe_ns = max(<int64_t> min(probe_s * 1e9, MOST_PROBE_NS), 1)
        if self.has_probes:
            self.learning.stale_ns = <uint64_t> self.probe_ns
        self.age_factor = age_factor if age_factor > 0 else INFINITY
        self.peak_cap = max(peak_cap, 1.0) if peak_cap > 0 else INFINITY  # below 1 nobody could be what is typical
        self.widen_factor = widen_factor if widen_factor > 0 else INFINITY
        self.has_floor = floor
        self.stream_weight = stream_weight
        self.alike_factor = alike_factor
        self.spread_rate = decay_rate(SPREAD_LASTS_S)
        self.is_bare = (
            age_factor <= 0 and peak_cap <= 0 and widen_factor <= 0 and probe_s <= 0 and alike_factor <= 0
            and not floor and stream_weight == 1
        )
        store(&self.surveyed_ns, INT64_MIN)
        store(&self.probed_ns, INT64_MIN)
        store(&self.probed_state, load(&self.state))
        store(&self.place, <int64_t> (mix(<uint64_t> load(&self.state)) % self.view.count))
        # While nothing is known, one with a call in flight that nobody has answered yet is worth more draws.
        store_double(&self.bad_ns, 0.5 * UNANSWERED_NS if widen_factor > 0 else INFINITY)
        store_double(&self.care_ns, INFINITY)
        store_double(&self.alike, 1.0)

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        cdef const Member* members = self.view.members
        cdef uint32_t first = 0, second = 0, chosen
        if self.view.count == 1:
            return 0
        if self.is_bare:
            self.draw_two(&first, &second)
            return self.prefer(first, second, now_ns)
        # Unsigned, so that a clock that stepped back is one that is due.
        if <uint64_t> now_ns - <uint64_t> load(&self.surveyed_ns) >= <uint64_t> SURVEY_NS:
            first = self.survey(now_ns)
            if first < self.view.count:
                return first
        self.draw_two(&first, &second)
        if (
            self.stream_weight == 1
            and not needs_care(&members[first], now_ns, self.age_factor)
            and not needs_care(&members[second], now_ns, self.age_factor)
        ):
            chosen = self.prefer(first, second, now_ns)
            if load_double(&members[chosen].slot.latency_ns) <= load_double(&self.care_ns):
                return chosen
        return self.choose_carefully(first, second, now_ns)

    cdef uint32_t prefer(self, uint32_t first, uint32_t second, int64_t now_ns) noexcept nogil:
        cdef const Member* members = self.view.members
        # Masked rather than branched on: the answer is a toss-up, and a misprediction costs more than all of this.
        cdef uint32_t mask = <uint32_t> 0 - <uint32_t> prefers_first(
            &members[first], &members[second], now_ns, self.learning.rate, load_double(&self.alike)
        )
        return second ^ ((first ^ second) & mask)

    cdef uint32_t choose_carefully(self, uint32_t first, uint32_t second, int64_t now_ns) noexcept nogil:
        """Choose between two draws of which one is new, slow or late, with every rule there is."""
        cdef const Member* members = self.view.members
        cdef double first_ns = 0, second_ns = 0
        cdef double first_load = self.load_and_latency(&members[first], now_ns, &first_ns)
        cdef double second_load = self.load_and_latency(&members[second], now_ns, &second_ns)
        if not costs_no_more(first_load, first_ns, second_load, second_ns, load_double(&self.alike)):
            first, first_ns, first_load = second, second_ns, second_load
        if first_ns > load_double(&self.bad_ns):
            return self.widen(first, first_load * first_ns * self.excess(first_ns), now_ns)
        return first

    cdef void draw_two(self, uint32_t* first, uint32_t* second) noexcept nogil:
        """Draw two endpoints; two distinct ones where all weigh the same.

        By weight they are drawn with replacement, so that a choice that is a toss-up gives each its exact share.
        """
        if self.view.columns == NULL:
            draw_pair(&self.state, self.view.count, first, second)
        else:
            first[0] = draw_column(self.view.columns, self.view.count, &self.state)
            second[0] = draw_column(self.view.columns, self.view.count, &self.state)

    cdef double load_and_latency(self, const Member* member, int64_t now_ns, double* latency_ns) noexcept nogil:
        """Return the load, and in `latency_ns` what the latency is taken for."""
        cdef SlotWords* slot = member.slot
        cdef int64_t stamp_ns = load(&slot.stamp_ns)
        cdef uint64_t begun = begun_calls(slot)
        cdef double count = <double> timed_in_flight(slot)
        cdef double latency, age
        if stamp_ns <= 0:
            latency = self.newcomer_ns(member, now_ns)
        else:
            latency = load_double(&slot.latency_ns) * faded(now_ns - stamp_ns, self.learning.rate)
            if self.has_floor:
                latency = max(latency, load_double(&self.least_ns))
            if begun:
                age = <double> ages_ns(begun, now_ns) / <double> number_of(begun)
                if age > self.age_factor * latency:
                    latency = age
        latency_ns[0] = latency
        return 1.0 + (count + self.stream_weight * <double> load(&slot.streams)) * member.inverse_weight

    cdef double newcomer_ns(self, const Member* member, int64_t now_ns) noexcept nogil:
        """Return what to take for the latency of an endpoint that has not answered yet: what is typical of its fleet.

        Once its first call is under way it costs more than anyone, until the answer is in.
        """
        cdef double typical_ns = max(load_double(&self.learning.typical_ns), LEAST_NS)
        if number_of(begun_calls(member.slot)) > 0:
            return UNANSWERED_NS
        if load(&member.slot.passed) > 0:
            return typical_ns  # it has answered, but not yet often enough to be believed
        return max(typical_ns, projected_ns(member.slot, now_ns, self.learning.rate))

    cdef uint32_t widen(self, uint32_t best, double least_cost, int64_t now_ns) noexcept nogil:
        """Look for one that is better than a bad one: among all of a small set, or until the first that is not bad."""
        cdef const Member* members = self.view.members
        cdef uint32_t count = self.view.count
        # By weight they are drawn all the same: what is there for one call of a hundred is no way out for all of them.
        cdef bint is_small = count <= MOST_EXTRA_DRAWS and self.view.columns == NULL
        cdef uint32_t start = below(&self.state, count, <uint32_t> (draw(&self.state) >> 32))
        cdef uint32_t turn, candidate
        cdef double cost, latency_ns = 0
        for turn in range(count if is_small else <uint32_t> MOST_EXTRA_DRAWS):
            if is_small:
                candidate = (start + turn) % count
            else:
                candidate = draw_member(members, self.view.columns, count, &self.state)
            cost = self.load_and_latency(&members[candidate], now_ns, &latency_ns)
            cost *= latency_ns * self.excess(latency_ns)
            if cost < least_cost:
                least_cost = cost
                best = candidate
            if not is_small and latency_ns <= load_double(&self.bad_ns):
                break
        return best

    cdef double excess(self, double latency_ns) noexcept nogil:
        """Return by how much an endpoint is worse than bad; 1 for one that is not.

        A slow server and a fast one with a few more calls in flight cost the same, but the calls on the slow one are the
        tail of everybody's latencies, and the fast one may well have room: it shows in its latency when it does not.
        """
        return latency_ns / load_double(&self.bad_ns) * self.widen_factor if latency_ns > load_double(&self.bad_ns) else 1.0

    cdef uint32_t survey(self, int64_t now_ns) noexcept nogil:
        """Find what is typical of the fleet now; return an endpoint that is due for a probe, or the count if none is."""
        cdef const Member* members = self.view.members
        cdef uint32_t count = self.view.count, known = 0, settled = 0, due = self.view.count
        cdef uint32_t size = count if count < <uint32_t> SURVEYED else <uint32_t> SURVEYED
        cdef uint32_t turn, index, place = <uint32_t> load(&self.place)
        cdef int64_t surveyed_ns = load(&self.surveyed_ns), stalest_ns = INT64_MAX
        cdef bint is_first = surveyed_ns == INT64_MIN
        cdef const SlotWords* slot
        cdef double latencies[SURVEYED]
        cdef double means[SURVEYED]
        cdef double spreads[SURVEYED]
        cdef double mean_ns, peak_ns, typical_ns
        if not replace(&self.surveyed_ns, surveyed_ns, now_ns):
            return count  # another thread is at it
        if is_first:
            # Nobody knows when the picker before this one had its last probe; any moment is as likely as another.
            store(&self.probed_ns, now_ns - <int64_t> (draw(&self.state) % <uint64_t> self.probe_ns))
        typical_ns = load_double(&self.learning.typical_ns)  # of the survey before; probes wait for one
        for turn in range(size):
            # Evenly spread, as neighbours may be alike; one further each time, so that everyone's turn comes.
            index = <uint32_t> ((place + <uint64_t> turn * count // size) % count)
            slot = members[index].slot
            mean_ns = load_double(&slot.mean_ns)
            if mean_ns > 0 and not is_newcomer(slot):
                insert(latencies, known, load_double(&slot.latency_ns))
                insert(means, known, mean_ns)
                known += 1
                # The first time what counts are the estimates, in which the spread of the picker before lives on.
                peak_ns = load_double(&slot.latency_ns if is_first else &slot.peak_ns)
                if load(&slot.samples) >= FEWEST_SAMPLES:
                    insert(spreads, settled, peak_ns / mean_ns)
                    settled += 1
            if is_first or heard_ns(slot) >= stalest_ns:
                continue
            if self.is_due(slot, typical_ns, now_ns) and self.may_probe(slot, now_ns):
                stalest_ns = heard_ns(slot)
                due = index
        store(&self.place, place + 1 if place + 1 < count else 0)
        if known:
            # The median, so that a server that stands out, or half of them, does not speak for the fleet.
            self.remember_spread(
                spreads[(settled - 1) // 2] if settled else 1.0, 0 if is_first else now_ns - surveyed_ns
            )
            # The lower quartile and not the median: of a fleet of which half is slow, the other half is typical.
            store_double(&self.learning.mean_ns, means[(known - 1) // 4])
            self.conclude(latencies[(known - 1) // 4], latencies[0])
        if due < count:
            store(&self.probed_ns, now_ns)
            store(&self.probed_state, load(&self.state))
            return due
        return count

    cdef void conclude(self, double typical_ns, double least_ns) noexcept nogil:
        cdef double spread = load_double(&self.learning.spread)
        cdef double alike = 1.0 + self.alike_factor * spread
        cdef double care = min(self.widen_factor, FLOOR_MATTERS if self.has_floor else INFINITY)
        store_double(&self.learning.typical_ns, typical_ns)
        store_double(&self.learning.cap_ns, self.peak_cap * load_double(&self.learning.mean_ns))
        store_double(&self.learning.lift, spread if self.alike_factor > 0 else 0.0)
        store_double(&self.least_ns, least_ns)
        store_double(&self.alike, alike)
        store_double(&self.bad_ns, max(self.widen_factor, alike) * typical_ns)
        store_double(&self.care_ns, max(care, alike) * typical_ns)

    cdef void remember_spread(self, double spread, int64_t since_ns) noexcept nogil:
        """Hold on to the largest spread seen lately: heavy calls are rare, and the next one is nobody's fault either."""
        spread = max(spread, load_double(&self.learning.spread) * faded(since_ns, self.spread_rate))
        store_double(&self.learning.spread, min(max(spread, 1.0), MOST_SPREAD))

    cdef bint is_due(self, const SlotWords* slot, double typical_ns, int64_t now_ns) noexcept nogil:
        """Tell whether nothing was heard for long of an endpoint that gets no calls because it is slow, or looks hung."""
        cdef int64_t left_alone_ns = now_ns - heard_ns(slot)
        cdef double estimate_ns = projected_ns(slot, now_ns, self.learning.rate)
        cdef uint64_t begun = begun_calls(slot)
        cdef double count = <double> number_of(begun)
        if not self.has_probes:
            return False
        if begun:
            # It may hang, and then another call is lost; or the last one it got is a long one, and it is well.
            estimate_ns = max(estimate_ns, <double> (LONGEST_WAIT * self.probe_ns) * count * count)
            return <double> ages_ns(begun, now_ns) > count * estimate_ns
        if heard_ns(slot) <= 0:
            return False
        # Of an estimate of the future, as when the clock stepped back, all others look faded.
        return is_past(left_alone_ns, <uint64_t> self.probe_ns) and (
            left_alone_ns < -CLOCK_SLACK_NS or estimate_ns > SLOW * typical_ns
        )

    cdef bint may_probe(self, const SlotWords* slot, int64_t now_ns) noexcept nogil:
        """Tell whether so many picks went elsewhere since the last probe that one may go to a slow endpoint."""
        # About as many as numbers were drawn: by weight each pick draws two.
        cdef uint64_t picks = draws_since(load(&self.probed_state), &self.state) // (1 if self.view.columns == NULL else 2)
        cdef uint64_t failures = lasting_failures(slot)
        cdef int64_t left_alone_ns = now_ns - heard_ns(slot)
        if load(&slot.passed) > 0 and begun_calls(slot) == 0:
            return True  # it is on its way back
        # A probe that was cancelled leaves its endpoint as long unheard of as it was.
        if picks < PICKS_BETWEEN_PROBES and <uint64_t> now_ns - <uint64_t> load(&self.probed_ns) < <uint64_t> self.probe_ns:
            return False
        if failures > 0:
            return picks >= PICKS_BETWEEN_FAILURES * failures or is_past(left_alone_ns, FAILURE_WAIT_NS * failures)
        return picks >= FEWEST_PICKS_BETWEEN_PROBES or is_past(left_alone_ns, <uint64_t> (LONGEST_WAIT * self.probe_ns))


cdef inline int64_t heard_ns(const SlotWords* slot) noexcept nogil:
    """Return when the estimate was last learnt from a call, whether that was answered or not; 0 if never."""
    cdef int64_t stamp_ns = load(&slot.stamp_ns)
    return stamp_ns if stamp_ns > 0 else -stamp_ns


cdef inline uint64_t lasting_failures(const SlotWords* slot) noexcept nogil:
    """Return as how many failures those in a row count: a second one for more, and more if it was not answered at all."""
    cdef int64_t streak = failure_streak(slot) if load(&slot.alive_ns) <= 0 else 0
    cdef uint64_t failures = AFTER_ANOTHER if streak > 1 else <uint64_t> streak
    return failures * DEADLINE_IN_FAILURES if heard_ns(slot) > last_answer_ns(slot) else failures


cdef inline void insert(double* ordered, uint32_t length, double value) noexcept nogil:
    cdef uint32_t place = length
    while place > 0 and ordered[place - 1] > value:
        ordered[place] = ordered[place - 1]
        place -= 1
    ordered[place] = value


cdef inline bint needs_care(const Member* member, int64_t now_ns, double age_factor) noexcept nogil:
    """Tell whether an endpoint is new, or its calls in flight are late."""
    cdef uint64_t begun = begun_calls(member.slot)
    cdef double count = <double> number_of(begun)
    return load(&member.slot.stamp_ns) <= 0 or (
        begun != 0 and <double> ages_ns(begun, now_ns) > age_factor * count * load_double(&member.slot.latency_ns)
    )


cdef inline bint prefers_first(
    const Member* first, const Member* second, int64_t now_ns, double rate, double alike
) noexcept nogil:
    """Tell whether the first of two draws costs no more.

    Both estimates fade at the same rate, so that only the gap between their ages counts: one decay does for two, and
    the comparison need not wait for the clock.
    """
    cdef int64_t first_ns = load(&first.slot.stamp_ns)
    cdef int64_t second_ns = load(&second.slot.stamp_ns)
    cdef double gap  # halvings that the first estimate has lost beyond those of the second
    if first_ns <= 0 or second_ns <= 0:
        return prefers_first_newcomer(first, second, now_ns, rate)
    gap = <double> (second_ns - first_ns) * rate
    gap = min(max(gap, -MOST_HALVINGS), MOST_HALVINGS)
    return costs_no_more(
        load_of(first), load_double(&first.slot.latency_ns) * halved(gap),
        load_of(second), load_double(&second.slot.latency_ns), alike,
    )


cdef inline bint costs_no_more(
    double first_load, double first_ns, double second_load, double second_ns, double alike
) noexcept nogil:
    """Tell whether latency x load of the first is no more than that of the second, or load alone if they are alike.

    In bits rather than branches: either answer is a toss-up, and a misprediction costs more than all of this.
    """
    cdef uint32_t is_alike = <uint32_t> (first_ns <= alike * second_ns) & <uint32_t> (second_ns <= alike * first_ns)
    return (is_alike & <uint32_t> (first_load <= second_load)) | (
        (is_alike ^ 1) & <uint32_t> (first_load * first_ns <= second_load * second_ns)
    )


cdef bint prefers_first_newcomer(
    const Member* first, const Member* second, int64_t now_ns, double rate
) noexcept nogil:
    """Do as `prefers_first` does where one or both have not answered yet.

    A newcomer borrows its rival's latency, for a fleet knows itself best, and once its first call is under way it
    costs more than anyone until the answer is in.
    """
    cdef double first_ns = projected_ns(first.slot, now_ns, rate) + LEAST_NS
    cdef double second_ns = projected_ns(second.slot, now_ns, rate) + LEAST_NS
    cdef double seed_ns = max(first_ns, second_ns)
    if is_newcomer(first.slot):
        first_ns = UNANSWERED_NS if number_of(begun_calls(first.slot)) > 0 else seed_ns
    if is_newcomer(second.slot):
        second_ns = UNANSWERED_NS if number_of(begun_calls(second.slot)) > 0 else seed_ns
    return cost(first, first_ns) <= cost(second, second_ns)


cdef inline double cost(const Member* member, double latency_ns) noexcept nogil:
    return latency_ns * load_of(member)
