"""The same endpoint for the same key: a ring of hashes, as a picker.

Endpoints have points on a circle of 64-bit hashes, and a call goes to the first one clockwise from the hash of its key:
gRPC's ring_hash (gRFC A42, A76), with the ring that C-core and Envoy make of the same names and weights. Those who can
take no call now keep their points, which a call passes over; so nobody else's keys move.

With bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent hashing with bounded loads", 2016) a call also
passes over whoever has more than its share of the calls in flight: no key makes its endpoint much busier than others.
"""

cimport cython
from libc.math cimport INFINITY, ceil
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy

from grpclb_core.native.atomics cimport add, load, replace, store, word
from grpclb_core.native.draws cimport draw
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport Slot, SlotWords, in_flight, is_busy_trial, open_call
from grpclb_core.native.ticket cimport Ticket, open_ticket
from grpclb_core.native.view cimport Member, View, draw_member
from grpclb_core.native.xxh64 cimport xxh64

# Points of a ring: the defaults, and the most, of gRFC A42.
MIN_RING_SIZE = 1024
MAX_RING_SIZE = 4096
MOST_POINTS = 8_388_608

# How far above the mean an endpoint may go: the c of the paper, and the value Vimeo made common with HAProxy.
BOUNDED_LOAD = 1.25

# Endpoints whose calls are counted again at each pick, beside those it passes: all of them every n / 2 picks.
cdef enum:
    LOOKS = 2

cdef enum:
    MOST_DIGITS = 10  # of a number of 32 bits


@cython.final
cdef class RingHashPicker(Picker):
    """Takes the first endpoint clockwise from the hash of a call's key; any, as by a random key, where a call has none.

    The points of an endpoint are the hashes of its name with a number. Names are those of the view's `roster`; without
    one, the places in the view.

    Args:
        view: the endpoints to choose among.
        min_ring_size: points on the ring, at least, unless `max_ring_size` is less; as many more as give the endpoint
            that weighs least a whole number of them.
        max_ring_size: points on the ring, at most; with more endpoints than that, some get none.
        key_header: the header whose value is the key of a call; None where calls have none.
        bounded_load: an endpoint is passed over that has this many times its share of the calls in flight, if each
            endpoint had one more; 0 for no bound.
        decay_s: mean lifetime of a latency sample in seconds.
        seed: makes random keys repeatable; None takes a seed from the system.

    Raises:
        ValueError: a size is not from 1 to `MOST_POINTS`, `bounded_load` is neither 0 nor 1 and more, the roster names
            a place that the view has not, or `decay_s` is not above 0.
    """

    def __init__(
        self, View view not None, *, min_ring_size=MIN_RING_SIZE, max_ring_size=MAX_RING_SIZE, key_header=None,
        bounded_load=BOUNDED_LOAD, decay_s=10.0, seed=None,
    ) -> None:
        if self.points != NULL or self.seen != NULL:
            raise ValueError("a picker keeps its ring: make another one")
        super().__init__(view, decay_s=decay_s, seed=seed)
        for size in (min_ring_size, max_ring_size):
            if not 1 <= size <= MOST_POINTS:
                raise ValueError(f"a ring of {size!r} points cannot be made; use 1 to {MOST_POINTS}")
        if not (bounded_load == 0 or 1 <= bounded_load < INFINITY):
            raise ValueError(f"bounded_load is {bounded_load!r}; use a number of 1 or more, or 0 for no bound")
        self.key_header = key_header
        self.bounded_load = bounded_load
        cdef list lines = roster_of(view)
        cdef Name* names = <Name*> malloc(max(len(lines), 1) * sizeof(Name))
        cdef uint32_t* places = <uint32_t*> malloc(max(len(lines), 1) * sizeof(uint32_t))
        cdef uint32_t count
        try:
            if names == NULL or places == NULL:
                raise MemoryError(f"no memory for a ring of {len(lines)} endpoints")
            count = read_names(lines, view.count, names, places)
            count_points(names, count, min_ring_size, max_ring_size)
            self.lay_out(lines, names, count, places)
        finally:
            free(names)
            free(places)
        if bounded_load:
            self.seen = <word*> malloc(view.count * sizeof(word))
            if self.seen == NULL:
                raise MemoryError(f"no memory to count the calls of {view.count} endpoints")
            for member in range(view.count):
                store(&self.seen[member], in_flight(view.members[member].slot))
                add(&self.total, load(&self.seen[member]))

    def __dealloc__(self) -> None:
        free(self.points)
        free(self.seen)

    @property
    def ring_size(self) -> int:
        """Points on the ring that calls can be taken at."""
        return self.length

    cdef int lay_out(self, list lines, const Name* names, uint32_t count, const uint32_t* places) except -1:
        """Put the points of all endpoints that can take a call in order."""
        cdef uint32_t turn, filled = 0
        cdef bytes name
        self.length = 0
        for turn in range(count):
            self.length += names[turn].points if names[turn].members else 0
        self.points = <Point*> malloc(max(self.length, 1) * sizeof(Point))
        if self.points == NULL:
            raise MemoryError(f"no memory for a ring of {self.length} points")
        for turn in range(count):
            if names[turn].members and names[turn].points:
                name = (<str> (<tuple> lines[names[turn].first])[0]).encode("utf-8", "surrogatepass")
                fill(&self.points[filled], name, &names[turn], places)
                filled += names[turn].points
        qsort(self.points, self.length, sizeof(Point), compare_points)
        return 0

    cdef uint64_t hash_of(self, object metadata) except? 0:
        """Return the hash of a call's key: the header's values, joined by commas; random where there is none (A76)."""
        cdef list values = []
        cdef bytes key
        if metadata is not None:
            for name, value in metadata:
                if name == self.key_header:
                    values.append(value if isinstance(value, bytes) else value.encode("utf-8"))
        key = b",".join(values)
        return xxh64(<const char*> key, len(key)) if key else draw(&self.state)

    cdef Ticket take_for(self, object metadata, int64_t now_ns, bint stream):
        cdef uint64_t hash
        try:
            hash = self.hash_of(metadata)
        except Exception:  # these are no headers, and grpc.aio will say so when the call is started with them
            hash = draw(&self.state)
        cdef SlotWords* slot = self.view.members[self.choose_for(hash)].slot
        open_call(slot, now_ns, stream, True)
        return open_ticket(<Slot> slot.owner, self, now_ns, stream)

    cdef uint32_t choose(self, int64_t now_ns) noexcept nogil:
        return self.choose_for(draw(&self.state))

    cdef uint32_t choose_for(self, uint64_t hash) noexcept nogil:
        """Return the first endpoint clockwise that may take one more call; the very first where none may."""
        cdef uint32_t count = self.view.count
        cdef uint32_t start, place, turn, chosen
        if self.length == 0:  # all who are there are among those that got no point
            return draw_member(self.view.members, self.view.columns, count, &self.state)
        if self.seen != NULL:
            place = <uint32_t> load(&self.cursor)
            for turn in range(<uint32_t> LOOKS):
                place = place + 1 if place + 1 < count else 0
                self.look_at(place, in_flight(self.view.members[place].slot))
            store(&self.cursor, place)
        start = first_from(self.points, self.length, hash)
        place = start
        chosen = self.points[start].member
        for turn in range(self.length):
            if self.may_take(self.points[place].member):
                chosen = self.points[place].member
                break
            place = place + 1 if place + 1 < self.length else 0
        if self.seen != NULL:
            self.look_at(chosen, in_flight(self.view.members[chosen].slot) + 1)
        return chosen

    cdef bint may_take(self, uint32_t member) noexcept nogil:
        """Tell whether an endpoint is neither on trial and busy, nor above its bound.

        The bound is c times its share of all calls in flight and one more for each endpoint, rounded up. The paper adds
        one call only, for the one that is to be placed; but then two calls of one key could not be open at once on a
        client that has few.
        """
        cdef const Member* one = &self.view.members[member]
        cdef int64_t calls = in_flight(one.slot)
        cdef double count = self.view.count
        if is_busy_trial(one.slot):
            return False
        if self.seen == NULL:
            return True
        self.look_at(member, calls)
        # Of whole numbers, to be less than a bound is to be less than what it is rounded up to.
        return <double> calls * one.inverse_weight * count < self.bounded_load * (<double> load(&self.total) + count)

    cdef void look_at(self, uint32_t member, int64_t calls) noexcept nogil:
        """Take note of an endpoint's calls. Counting all at each pick would cost as much as there are endpoints.

        A call that ends is noticed when its endpoint is looked at again, so the total may be high, and the bound with
        it, for n / 2 picks; it is never low for long, as each pick is counted at once.
        """
        cdef int64_t before = load(&self.seen[member])
        if calls != before and replace(&self.seen[member], before, calls):
            add(&self.total, calls - before)


def xxh64_of(bytes data not None) -> int:
    """Return the hash of some bytes."""
    return xxh64(<const char*> data, len(data))


cdef list roster_of(View view):
    """Return who is known by name: (name, weight, place in the view), by name."""
    if view.roster is not None:
        return sorted(view.roster, key=lambda line: line[0])
    return sorted([(str(place), 1.0 / view.members[place].inverse_weight, place) for place in range(view.count)])


cdef uint32_t read_names(list lines, uint32_t count, Name* names, uint32_t* places) except? 0:
    """Fill in the endpoints of a roster and whom of the view each of them is; return how many there are.

    Lines of one name are one endpoint, as are several connections to it.
    """
    cdef uint32_t found = 0, line
    cdef int64_t place
    cdef double weight
    cdef str name, last = None
    for line in range(<uint32_t> len(lines)):
        named, weight, place = <tuple?> lines[line]
        name = <str?> named  # refuses None as well
        if not -1 <= place < count:
            raise ValueError(f"{name!r} has place {place}, and the view has {count} slots; use -1 for none of them")
        if not 0.0 < weight < INFINITY:
            raise ValueError(f"{name!r} has weight {weight!r}, which is not usable; use a number above 0")
        if found == 0 or name != last:
            names[found].first = line
            names[found].members = 0
            names[found].weight = 0.0
            found += 1
            last = name
        names[found - 1].weight += weight
        if place >= 0:
            places[names[found - 1].first + names[found - 1].members] = <uint32_t> place
            names[found - 1].members += 1
    return found


cdef void count_points(Name* names, uint32_t count, double min_ring_size, double max_ring_size) noexcept:
    """Fill in how many points each endpoint has, by the steps of C-core's ring_hash.cc and Envoy's ring_hash_lb.cc.

    These are floating-point sums whose rounding decides about single points, so the order of steps is theirs.
    """
    cdef double total = 0.0, largest = 0.0, least = 1.0, made = 0.0, due = 0.0, unit = 1.0, scale = max_ring_size
    cdef uint32_t turn
    for turn in range(count):
        total += names[turn].weight
        largest = max(largest, names[turn].weight)
    if total == INFINITY:  # parts of the largest will do
        unit = largest / 2 if largest < INFINITY else largest
        total = 0.0
        for turn in range(count):
            total += names[turn].weight / unit
    for turn in range(count):
        least = min(least, names[turn].weight / unit / total)
    if least > 0.0:
        scale = min(ceil(least * min(min_ring_size, max_ring_size)) / least, max_ring_size)
    for turn in range(count):
        due += scale * (names[turn].weight / unit / total)
        names[turn].points = 0
        while made < due:
            names[turn].points += 1
            made += 1.0


cdef int fill(Point* points, bytes name, const Name* endpoint, const uint32_t* places) except -1:
    """Write the points of one endpoint: the hashes of `name_0`, `name_1` and so on."""
    cdef size_t length = len(name)
    cdef char* text = <char*> malloc(length + 1 + MOST_DIGITS)
    cdef uint32_t number
    if text == NULL:
        raise MemoryError(f"no memory for a name of {length} bytes")
    memcpy(text, <const char*> name, length)
    text[length] = c"_"
    for number in range(endpoint.points):
        points[number].hash = xxh64(text, length + 1 + write_number(text + length + 1, number))
        points[number].member = places[endpoint.first + number % endpoint.members]
    free(text)
    return 0


cdef inline uint32_t first_from(const Point* points, uint32_t length, uint64_t hash) noexcept nogil:
    """Return the place of the first point at or past a hash; the first of all past the last."""
    cdef uint32_t low = 0, high = length, middle
    while low < high:
        middle = low + (high - low) // 2
        if points[middle].hash < hash:
            low = middle + 1
        else:
            high = middle
    return low if low < length else 0


cdef int compare_points(const void* first, const void* second) noexcept nogil:
    """Order points by hash; the same hash twice is next to impossible, but has one order all the same."""
    cdef const Point* one = <const Point*> first
    cdef const Point* other = <const Point*> second
    if one.hash != other.hash:
        return -1 if one.hash < other.hash else 1
    return (one.member > other.member) - (one.member < other.member)


cdef inline size_t write_number(char* text, uint32_t number) noexcept nogil:
    """Write a number in decimal; return how many digits it has."""
    cdef size_t digits = 1, place
    cdef uint32_t rest = number
    while rest >= 10:
        rest //= 10
        digits += 1
    for place in range(digits):
        text[digits - 1 - place] = <char> (c"0" + number % 10)
        number //= 10
    return digits
