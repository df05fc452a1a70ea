"""What all pickers are, and the three that look at no latency: least request, round robin, random."""

import os

cimport cython
from libc.stdint cimport int64_t, uint32_t

from grpclb_core.native.atomics cimport add, store, word
from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.draws cimport below, draw
from grpclb_core.native.ewma cimport decay_rate
from grpclb_core.native.slot cimport Slot, SlotWords, is_busy_trial, is_on_trial, open_call, plain_learning
from grpclb_core.native.ticket cimport Issuer, Ticket, open_ticket
from grpclb_core.native.view cimport Member, View, draw_column, draw_member, load_of

# Mean lifetime of a latency sample: finagle, linkerd, go-zero and brpc all use 10 s.
DEFAULT_DECAY_S = 10.0

# Draws of `least_request`: gRFC A48 allows 2 to 10 there.
FEWEST_CHOICES = 2
MOST_CHOICES = 10
cdef enum:
    ROOM_FOR_CHOICES = 10

# How often a choice is made anew when it falls on an endpoint that is on trial and busy, before any other is taken.
# Trials are few, as endpoints come out of an ejection one by one: with a third of the set on trial, one in 81 gets that
# far.
cdef enum:
    CHOICES_PAST_TRIALS = 4

cdef const ClockScale* clock = clock_scale()


cdef class Picker(Issuer):
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
        if view.count == 0:
            raise ValueError("the view was never made: it has no endpoints")
        self.view = view
        self.learning = plain_learning(decay_rate(decay_s))
        cdef bytes entropy = os.urandom(8) if seed is None else (<object> seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        store(&self.state, int.from_bytes(entropy, "little", signed=True))

    def __len__(self) -> int:
        return 0 if self.view is None else self.view.count

    def reported(self, Slot slot not None) -> None:
        """Take note that a load report came into a slot."""

    def pick(self) -> Ticket:
        """Choose an endpoint for a unary call and open its ticket."""
        return self.take(read_clock(clock), False)

    def pick_stream(self) -> Ticket:
        """Choose an endpoint for a call whose length says nothing of the server, and open its ticket."""
        return self.take(read_clock(clock), True)

    def pick_at(self, int64_t now_ns, bint stream=False) -> Ticket:
        """Do as `pick` does at the time `now_ns`, on whatever clock the caller keeps."""
        return self.take(now_ns, stream)

    def pick_for_at(self, metadata, int64_t now_ns, bint stream=False) -> Ticket:
        """Do as `pick_at` does for a call with these headers, which `key_header` is one of where the choice goes by it."""
        return self.take_for(metadata, now_ns, stream)

    cdef Ticket take(self, int64_t now_ns, bint stream):
        if self.view is None:
            raise ValueError("the picker was never made: call Picker.__init__ with its view")
        cdef uint32_t index = self.choose(now_ns)
        cdef SlotWords* slot = self.view.members[index].slot
        if is_on_trial(slot):
            slot = self.view.members[self.spare_trials(index, now_ns)].slot
        open_call(slot, now_ns, stream, True)
        return open_ticket(<Slot> slot.owner, self, now_ns, stream)

    cdef Ticket take_for(self, object metadata, int64_t now_ns, bint stream):
        return self.take(now_ns, stream)

    cdef uint32_t spare_trials(self, uint32_t index, int64_t now_ns) noexcept:
        """Return an endpoint to take instead of one on trial that has its one call already; that one if all are such."""
        cdef const Member* members = self.view.members
        cdef uint32_t count = self.view.count
        cdef uint32_t chosen = index
        cdef uint32_t turn
        for turn in range(<uint32_t> CHOICES_PAST_TRIALS):
            if not is_busy_trial(members[chosen].slot):
                return chosen
            chosen = self.choose(now_ns)
        for turn in range(count):
            chosen = (index + turn) % count
            if not is_busy_trial(members[chosen].slot):
                return chosen
        return index

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        return 0


@cython.final
cdef class LeastRequestPicker(Picker):
    """Draws `choice_count` endpoints (2 to 10) and takes the one with the fewest calls in flight for its weight.

    gRFC A48, but with distinct draws where all weigh the same: drawing one endpoint twice is a random pick in disguise.
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
        cdef uint32_t turn, candidate, best = 0
        cdef double load, least = -1.0
        for turn in range(draws):
            if self.view.columns == NULL:
                candidate = draw_another(&self.state, count, drawn, turn)
            else:
                candidate = draw_column(self.view.columns, count, &self.state)
            load = load_of(&members[candidate])
            if least < 0 or load < least:
                least = load
                best = candidate
        return best


cdef inline uint32_t draw_another(word* state, uint32_t count, uint32_t* drawn, uint32_t turn) noexcept nogil:
    """Draw one that was not drawn in an earlier turn; `drawn` has those in order, and takes this one in."""
    cdef uint32_t candidate = below(state, count - turn, <uint32_t> (draw(state) >> 32))
    cdef uint32_t earlier = 0
    # It is a place among those not drawn yet: walk up past the earlier ones.
    while earlier < turn and drawn[earlier] <= candidate:
        candidate += 1
        earlier += 1
    insert(drawn, turn, earlier, candidate)
    return candidate


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
    """Takes any endpoint, each as likely as its weight says."""

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        return draw_member(self.view.members, self.view.columns, self.view.count, &self.state)
