"""The multi-callables of a balanced channel: pick, start the call on that endpoint, hand back grpc.aio's own call."""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

import grpc.aio

from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.picker cimport Picker
from grpclb_core.native.slot cimport DROPPED, is_surely_alive
from grpclb_core.native.ticket cimport Ticket


cdef const ClockScale* clock = clock_scale()

cdef object READY = grpc.ChannelConnectivity.READY


@cython.final
cdef class CurrentPicker:
    """The picker generation in force, replaced whole; None while no endpoint can take a call.

    Args:
        lost: told the slot of a picked endpoint whose connection turns out to be gone; puts another picker in force.
    """

    def __init__(self, lost) -> None:
        self.lost = lost

    @property
    def loop(self):
        """The event loop whose calls may take the fast path; None before its first use and after closing.

        Set it from within that loop.
        """
        return None if self.is_running is None else self.is_running.__self__

    @loop.setter
    def loop(self, loop) -> None:
        self.is_running = None if loop is None else loop.is_running
        self.thread = PyThread_get_thread_ident()

    cdef bint is_in_its_loop(self) except -1:
        # A thread runs one loop at a time. Asking asyncio which one takes it a system call, before Python 3.12.
        return self.is_running is not None and self.thread == PyThread_get_thread_ident() and self.is_running()


cdef class MultiCallable:
    """One method of a stub.

    Args:
        current: where the picker in force is found.
        bind: given the slot of an endpoint, returns this method's multi-callable on the endpoint's channel, and the
            channel's `get_state`.
        otherwise: takes the calls that cannot start at once: the channel is closed or not started, has interceptors,
            sheds calls, is used from another loop, or no endpoint is ready. Called with this object and the six call
            arguments.
        interceptors: the channel's live list; the fast path is for channels without any.
        timed: whether the length of a call says how fast its server is.
    """

    def __init__(self, CurrentPicker current not None, bind, otherwise, list interceptors not None, bint timed) -> None:
        self.current = current
        self.bind = bind
        self.otherwise = otherwise
        self.interceptors = interceptors
        self.bound = {}
        self.stream = not timed

    def start(self, request, timeout, metadata, credentials, wait_for_ready, compression):
        """Start the call on the endpoint picked now; None if no endpoint is ready."""
        return self.send(request, timeout, metadata, credentials, wait_for_ready, compression)

    def start_on(self, Ticket ticket not None, request, timeout, metadata, credentials, wait_for_ready, compression):
        """Start the call on the endpoint of a ticket somebody else opened."""
        return dispatch(self.endpoint_of(ticket)[0], ticket, request, timeout, metadata, credentials, wait_for_ready, compression)

    def forget(self, slot) -> None:
        """Let go of the channel of an endpoint that left, or got a new connection."""
        self.bound.pop(slot, None)

    cdef object call(self, object request, object timeout, object metadata, object credentials,
                     object wait_for_ready, object compression):
        cdef object started
        if not self.interceptors and not self.current.sheds and self.current.is_in_its_loop():
            started = self.send(request, timeout, metadata, credentials, wait_for_ready, compression)
            if started is not None:
                return started
        return self.otherwise(self, request, timeout, metadata, credentials, wait_for_ready, compression)

    cdef object send(self, object request, object timeout, object metadata, object credentials,
                     object wait_for_ready, object compression):
        cdef Ticket ticket
        cdef Picker picker
        cdef tuple endpoint
        cdef int64_t now_ns
        while self.current.picker is not None:
            picker = self.current.picker
            now_ns = read_clock(clock)
            if picker.key_header is None:
                ticket = picker.take(now_ns, self.stream)
            else:
                ticket = picker.take_for(metadata, now_ns, self.stream)
            endpoint = self.endpoint_of(ticket)
            if is_surely_alive(ticket.slot.words, now_ns) or endpoint[1]() is READY:
                return dispatch(endpoint[0], ticket, request, timeout, metadata, credentials, wait_for_ready, compression)
            # The connection broke a moment ago, and a call sent there now would fail.
            ticket.settle(DROPPED, read_clock(clock))
            self.current.lost(ticket.slot)
        return None

    cdef tuple endpoint_of(self, Ticket ticket):
        cdef object endpoint = self.bound.get(ticket.slot)
        if endpoint is None:
            endpoint = self.bound[ticket.slot] = self.bind(ticket.slot)
        return <tuple?> endpoint


cdef object dispatch(object endpoint, Ticket ticket, object request, object timeout, object metadata,
                     object credentials, object wait_for_ready, object compression):
    """Start a call on the endpoint of `ticket`, and tie the ticket to the end of it."""
    cdef object call
    try:
        if timeout is None and metadata is None and credentials is None and wait_for_ready is None and compression is None:
            call = endpoint(request)
        else:
            call = endpoint(request, timeout=timeout, metadata=metadata, credentials=credentials,
                            wait_for_ready=wait_for_ready, compression=compression)
        if metadata is not None and not is_sendable(metadata):
            # C-core will refuse the call, and grpc.aio then never runs its done callbacks: there is no debt to keep.
            ticket.settle(DROPPED, read_clock(clock))
        else:
            ticket.follow(call)
    except BaseException:
        ticket.settle(DROPPED, read_clock(clock))
        raise
    return call


cdef bint is_sendable(object metadata) except -1:
    """Tell whether C-core will take these headers: gRPC's "Custom-Metadata" rules."""
    for key, value in metadata:
        if not isinstance(key, str) or not is_key(key):
            return False
        if isinstance(value, bytes):
            if not key.endswith("-bin") and not is_text((<bytes> value).decode("latin-1")):
                return False
        elif not isinstance(value, str) or key.endswith("-bin") or not is_text(value):
            return False
    return True


cdef bint is_key(str key) noexcept:
    cdef Py_UCS4 character
    for character in key:
        if not (u"a" <= character <= u"z" or u"0" <= character <= u"9" or character in u"-_."):
            return False
    return len(key) > 0


cdef bint is_text(str value) noexcept:
    cdef Py_UCS4 character
    for character in value:
        if not u" " <= character <= u"~":
            return False
    return True


cdef class UnaryRequest(MultiCallable):
    def __call__(self, request, *, timeout=None, metadata=None, credentials=None, wait_for_ready=None,
                 compression=None):
        """Start a call with one request."""
        return self.call(request, timeout, metadata, credentials, wait_for_ready, compression)


cdef class StreamRequest(MultiCallable):
    def __call__(self, request_iterator=None, timeout=None, metadata=None, credentials=None, wait_for_ready=None,
                 compression=None):
        """Start a call with a stream of requests, or one whose requests are written later."""
        return self.call(request_iterator, timeout, metadata, credentials, wait_for_ready, compression)


# One final class an arity, because callers tell arities apart by isinstance, and a compiled class cannot inherit
# grpc.aio's own.

@cython.final
cdef class UnaryUnaryMultiCallable(UnaryRequest):
    pass


@cython.final
cdef class UnaryStreamMultiCallable(UnaryRequest):
    pass


@cython.final
cdef class StreamUnaryMultiCallable(StreamRequest):
    pass


@cython.final
cdef class StreamStreamMultiCallable(StreamRequest):
    pass


grpc.aio.UnaryUnaryMultiCallable.register(UnaryUnaryMultiCallable)
grpc.aio.UnaryStreamMultiCallable.register(UnaryStreamMultiCallable)
grpc.aio.StreamUnaryMultiCallable.register(StreamUnaryMultiCallable)
grpc.aio.StreamStreamMultiCallable.register(StreamStreamMultiCallable)
