"""The four pickers of the core: power of two choices over peak EWMA, least request, round robin, random."""

import os

cimport cython
from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport add, load, load_double, store
from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.draws cimport below, draw, draw_pair
from grpclb_core.native.ewma cimport MOST_HALVINGS, decay_rate, halved
from grpclb_core.native.slot cimport Slot, SlotWords, in_flight, is_newcomer, open_call, projected_ns, timed_in_flight
from grpclb_core.native.ticket cimport Ticket, open_ticket
from grpclb_core.native.view cimport Member, View

# Mean lifetime of a latency sample: finagle, linkerd, go-zero and brpc all use 10 s.
DEFAULT_DECAY_S = 10.0

# What a newcomer with a call in flight costs: more than any latency (39 hours), so that it gets one probe and then
# nothing until it answers. finagle's penalty, Long.MaxValue >> 16.
cdef double UNANSWERED_NS = 140737488355328.0

# Part of a latency that may be nothing, and far below any that is real: where all are new, what is left of their costs
# is the calls in flight.
cdef double LEAST_NS = 1e-290

# Draws of `least_request`: gRFC A48 allows 2 to 10 there.
FEWEST_CHOICES = 2
MOST_CHOICES = 10
cdef enum:
    ROOM_FOR_CHOICES = 10

cdef const ClockScale* clock = clock_scale()


cdef class Picker:
    """Chooses endpoints of one view; replaced as a whole when the view changes.

    Args:
        view: the endpoints to choose among.
        decay_s: mean lifetime of a latency sample in seconds.
        seed: makes the draws repeatable; None takes a seed from the system.

    Raises:
        ValueError: `decay_s` is not above 0.
    """

    def __init__(self, View view not None, *, decay_s=DEFAULT_DECAY_S, seed=None) -> None:
        if not decay_s > 0:
            raise ValueError(f"decay_s is {decay_s!r}; use a number of seconds above 0")
        self.view = view
        self.rate = decay_rate(decay_s)
        cdef bytes entropy = os.urandom(8) if seed is None else (<object> seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        store(&self.state, int.from_bytes(entropy, "little", signed=True))

    def __len__(self) -> int:
        return self.view.count

    def pick(self) -> Ticket:
        """Choose an endpoint for a unary call and open its ticket."""
        return self.take(read_clock(clock), False)

    def pick_stream(self) -> Ticket:
        """Choose an endpoint for a call whose length says nothing of the server, and open its ticket."""
        return self.take(read_clock(clock), True)

    def pick_at(self, int64_t now_ns, bint stream=False) -> Ticket:
        """Do as `pick` does at the time `now_ns`, on whatever clock the caller keeps."""
        return self.take(now_ns, stream)

    cdef Ticket take(self, int64_t now_ns, bint stream):
        cdef uint32_t index = self.choose(now_ns)
        cdef SlotWords* slot = self.view.members[index].slot
        open_call(slot, now_ns, stream, True)
        return open_ticket(<Slot> slot.owner, now_ns, self.rate, stream)

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        return 0


cdef inline bint prefers_first(const Member* first, const Member* second, int64_t now_ns, double rate) noexcept nogil:
    """Tell whether the first of two draws costs no more: latency x (in-flight + 1) / weight.

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
    return cost(first, load_double(&first.slot.latency_ns)) * halved(gap) <= cost(
        second, load_double(&second.slot.latency_ns)
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
        first_ns = UNANSWERED_NS if timed_in_flight(first.slot) > 0 else seed_ns
    if is_newcomer(second.slot):
        second_ns = UNANSWERED_NS if timed_in_flight(second.slot) > 0 else seed_ns
    return cost(first, first_ns) <= cost(second, second_ns)


cdef inline double cost(const Member* member, double latency_ns) noexcept nogil:
    return latency_ns * <double> (in_flight(member.slot) + 1) * member.inverse_weight


@cython.final
cdef class P2cEwmaPicker(Picker):
    """Draws two endpoints and takes the one with less peak-EWMA latency x calls in flight; the first on a tie."""

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        cdef const Member* members = self.view.members
        cdef uint32_t first = 0, second = 0, mask
        if self.view.count == 1:
            return 0
        draw_pair(&self.state, self.view.count, &first, &second)
        # Masked rather than branched on: the answer is a toss-up, and a misprediction costs more than all of this.
        mask = <uint32_t> 0 - <uint32_t> prefers_first(&members[first], &members[second], now_ns, self.rate)
        return second ^ ((first ^ second) & mask)


@cython.final
cdef class LeastRequestPicker(Picker):
    """Draws `choice_count` endpoints (2 to 10) and takes the one with the fewest calls in flight for its weight.

    gRFC A48, but with distinct draws: drawing one endpoint twice is a random pick in disguise.
    """

    def __init__(self, View view not None, *, choice_count=2, decay_s=DEFAULT_DECAY_S, seed=None) -> None:
        super().__init__(view, decay_s=decay_s, seed=seed)
        if not FEWEST_CHOICES <= choice_count <= MOST_CHOICES:
            raise ValueError(f"choice_count is {choice_count!r}; use {FEWEST_CHOICES} to {MOST_CHOICES}")
        self.choice_count = choice_count

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        cdef const Member* members = self.view.members
        cdef uint32_t drawn[ROOM_FOR_CHOICES]
        cdef uint32_t count = self.view.count
        cdef uint32_t draws = self.choice_count if self.choice_count < count else count
        cdef uint32_t turn, earlier, candidate, best = 0
        cdef double cost, least = -1.0
        for turn in range(draws):
            # Each draw is made among those not drawn yet: walk up past the earlier ones, which are kept in order.
            candidate = below(&self.state, count - turn, <uint32_t> (draw(&self.state) >> 32))
            earlier = 0
            while earlier < turn and drawn[earlier] <= candidate:
                candidate += 1
                earlier += 1
            insert(drawn, turn, earlier, candidate)
            cost = <double> (in_flight(members[candidate].slot) + 1) * members[candidate].inverse_weight
            if least < 0 or cost < least:
                least = cost
                best = candidate
        return best


cdef inline void insert(uint32_t* ordered, uint32_t length, uint32_t position, uint32_t value) noexcept nogil:
    cdef uint32_t index = length
    while index > position:
        ordered[index] = ordered[index - 1]
        index -= 1
    ordered[position] = value


@cython.final
cdef class RoundRobinPicker(Picker):
    """Takes endpoints in turn, from a random start so that many clients do not all begin with the same one."""

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        return <uint32_t> (<unsigned long long> add(&self.state, 1) % self.view.count)


@cython.final
cdef class RandomPicker(Picker):
    """Takes any endpoint, each as likely as the others."""

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        return below(&self.state, self.view.count, <uint32_t> (draw(&self.state) >> 32))
