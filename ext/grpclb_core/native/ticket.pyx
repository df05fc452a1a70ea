"""The debt of one pick, settled exactly once: by status, by cancellation, or by being dropped."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

import grpc

from grpclb_core.native.atomics cimport load, store, take
from grpclb_core.native.clock cimport ClockScale, clock_scale, read_clock
from grpclb_core.native.slot cimport (
    CANCELLED,
    DROPPED,
    FAILURE,
    RATE_LIMITED,
    SUCCESS,
    TIMED_OUT,
    UNAVAILABLE,
    Slot,
    close_call,
    is_failure,
    plain_learning,
)


cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    void release_reference "Py_DECREF"(PyObject*)
    PySendResult PyIter_Send(object iterator, object value, PyObject** result) except? PYGEN_ERROR


cdef const ClockScale* clock = clock_scale()

cdef object CANCELLED_STATUS = grpc.StatusCode.CANCELLED
cdef int OK = grpc.StatusCode.OK.value[0]
cdef int CANCELLED_BY_SOMEONE = CANCELLED_STATUS.value[0]

# The statuses that speak against the server. The others are answers: the caller asked for something that cannot be
# had, and was told so. linkerd2-proxy draws the line at the same codes, and has the same classes (load-biaser, 2026).
cdef dict FAULTS = {
    grpc.StatusCode.UNKNOWN.value[0]: FAILURE,
    grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: TIMED_OUT,  # no sign of life either
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]: RATE_LIMITED,
    grpc.StatusCode.INTERNAL.value[0]: FAILURE,
    grpc.StatusCode.UNAVAILABLE.value[0]: UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS.value[0]: FAILURE,
}

# What grpc.aio writes into the details of a call that the application cancelled. A call cancelled by the garbage
# collector carries other words, and its length is that of the collector's sleep.
cdef str BY_APPLICATION = "Locally cancelled by application!"


cdef object core_call_type():
    """Return the class of C-core's side of a call if this grpcio has it as we know it, else None."""
    try:
        from grpc._cython.cygrpc import _AioCall
    except ImportError:
        return None
    known = all(hasattr(_AioCall, name) for name in ("add_done_callback", "is_ok", "status"))
    return _AioCall if known else None


cdef object CORE_CALL = core_call_type()


# Where a server says how long to leave it alone (gRFC A6).
cdef str PUSHBACK = "grpc-retry-pushback-ms"


cdef class Issuer:
    """What opens tickets: how those that are settled change their slots, and who reads what the server sent with a call.

    `reporter`, unless None, is called with the slot and the trailing metadata of each call that ended.
    """

    def __cinit__(self) -> None:
        self.learning = plain_learning(0.0)


@cython.final
@cython.no_gc
@cython.freelist(256)  # as many calls as one event loop commonly keeps open at once
cdef class Ticket:
    """Proof that an endpoint was picked; gives its in-flight back when finished, or else when dropped.

    It is made by a picker alone. Called with a grpc.aio call that is done, it reads the status and finishes itself.
    """

    def __init__(self) -> None:
        raise TypeError("a ticket is opened by a picker: call its pick()")

    def __dealloc__(self) -> None:
        if self.slot is not None:
            self.settle(DROPPED, self.start_ns)

    @property
    def is_open(self) -> bool:
        """Whether the debt is still to be settled."""
        return load(&self.is_open) != 0

    def finish(self, int outcome, /) -> bool:
        """Settle the debt as one of `grpclb_core.types.Outcome`; True only for the call that did it.

        Raises:
            ValueError: `outcome` is no outcome.
        """
        return self.settle(known(outcome), read_clock(clock))

    def finish_at(self, int outcome, int64_t now_ns) -> bool:
        """Do as `finish` does at the time `now_ns`, on the clock the pick was made by."""
        return self.settle(known(outcome), now_ns)

    def __call__(self, call=None) -> None:
        """Settle the debt by the final status of `call`: the done callback of a grpc.aio call."""
        cdef int64_t now_ns = read_clock(clock)
        cdef int outcome = DROPPED  # of a call that fails to tell its status
        cdef double hint_ns = 0.0
        cdef object trailing = None
        if call is None and self.core_call == NULL:
            raise TypeError("a ticket needs the call that is done, to read its status")
        if load(&self.is_open):
            try:
                outcome = outcome_of_core(<object> self.core_call) if call is None else outcome_of(call)
                if is_failure(outcome) or self.issuer.reporter is not None:
                    trailing = trailing_of_core(<object> self.core_call) if call is None else trailing_of(call)
                    hint_ns = pushback_ns(trailing) if is_failure(outcome) else 0.0
            finally:
                self.settle(outcome, now_ns, hint_ns)
            if trailing is not None and self.issuer.reporter is not None:
                self.issuer.reporter(self.slot, trailing)

    cdef int follow(self, object call) except -1:
        """Settle the debt when `call` ends.

        grpcio keeps C-core's side of a call in a private attribute. Its callbacks take no argument, so following it
        there costs neither a partial nor a reference cycle. A call without it, intercepted or of another grpcio, is
        followed in the documented way.
        """
        cdef object core_call = getattr(call, "_cython_call", None)
        if core_call is None or type(core_call) is not CORE_CALL:
            call.add_done_callback(self)
        else:
            self.core_call = <PyObject*> core_call
            core_call.add_done_callback(self)
        return 0

    cdef bint settle(self, int outcome, int64_t now_ns, double hint_ns=0.0) noexcept:
        if not take(&self.is_open):
            return False
        close_call(
            self.slot.words, outcome, self.start_ns, now_ns, &self.issuer.learning, self.stream, True, hint_ns
        )
        return True


cdef inline int known(int outcome) except -1:
    if 0 <= outcome <= <int> RATE_LIMITED:  # C takes the names for unsigned numbers
        return outcome
    raise ValueError(f"outcome {outcome} is unknown; use a member of grpclb_core.types.Outcome")


cdef Ticket open_ticket(Slot slot, Issuer issuer, int64_t now_ns, bint stream):
    cdef Ticket ticket = Ticket.__new__(Ticket)
    ticket.slot = slot
    ticket.issuer = issuer
    ticket.start_ns = now_ns
    ticket.stream = stream
    ticket.core_call = NULL
    store(&ticket.is_open, 1)
    return ticket


cdef object finished_value(object coroutine):
    """Return what a coroutine returns without waiting, or None if it would wait.

    `code()` of a call that is done has nothing to wait for; asking it this way needs no task, and works on every
    kind of call there is, plain, intercepted or someone else's.
    """
    cdef PyObject* result = NULL
    cdef PySendResult step = PyIter_Send(coroutine, None, &result)
    cdef object value = <object> result
    release_reference(result)
    if step == PYGEN_RETURN:
        return value
    coroutine.close()
    return None


cdef int outcome_of(object call) except -1:
    cdef object code = finished_value(call.code())
    if code is None:
        return DROPPED
    if not isinstance(code, grpc.StatusCode):
        return SUCCESS  # a status gRPC does not know: somebody answered something
    return outcome_of_status(code.value[0], finished_value(call.details()) if code is CANCELLED_STATUS else None)


cdef int outcome_of_core(object core_call) except -1:
    if core_call.is_ok():
        return SUCCESS
    cdef object status = finished_value(core_call.status())
    return outcome_of_status(status.code(), status.details())


cdef object trailing_of(object call):
    return finished_value(call.trailing_metadata())


cdef object trailing_of_core(object core_call):
    return finished_value(core_call.status()).trailing_metadata()


cdef int outcome_of_status(int code, object details) except -1:
    if code == OK:
        return SUCCESS
    if code == CANCELLED_BY_SOMEONE:
        return CANCELLED if details == BY_APPLICATION else DROPPED
    return FAULTS.get(code, SUCCESS)


cdef double pushback_ns(object trailing) except -1:
    """Return how long the server of a failed call asked to be left alone; 0 if it did not, or nobody understands it."""
    cdef double wanted_ms
    for key, value in trailing or ():
        if key == PUSHBACK:
            try:
                wanted_ms = float(value)
                return wanted_ms * 1e6 if wanted_ms > 0 else 0.0
            except ValueError:
                return 0.0
    return 0.0
