"""What does this server say of its load, and how is it measured?

    recorder = LoadRecorder()
    server = grpc.aio.server(interceptors=[LoadInterceptor(recorder)])
    add_load_service(server, recorder)

Read `recorder.py` first: it counts the calls that an interceptor tells it of, and makes the reports. `aio.py` and
`threads.py` are the interceptors for the two kinds of server, `trailers.py` is what they share, and `service.py`
reports out of band. What all of it means to clients is in docs/load-reports.md.
"""

from .aio import LoadInterceptor
from .recorder import LoadRecorder, record_request_cost
from .service import add_load_service
from .threads import SyncLoadInterceptor

__all__ = ["LoadInterceptor", "LoadRecorder", "SyncLoadInterceptor", "add_load_service", "record_request_cost"]
