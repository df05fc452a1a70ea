"""What do Python backends add?

    from grpclb_core import server

    recorder = server.LoadRecorder()
    grpc_server = grpc.aio.server(interceptors=[server.LoadInterceptor(recorder)])
    async with server.register("etcd://10.0.0.9:2379/services/greeter", "10.0.0.1:50051", drain_s=2):
        await stop.wait()

Not imported with the package: a client has no need of it.
"""

from ..errors import RegistrationError
from .load import LoadInterceptor, LoadRecorder, SyncLoadInterceptor, add_load_service, record_request_cost
from .registration import Registration, register

__all__ = [
    "LoadInterceptor",
    "LoadRecorder",
    "Registration",
    "RegistrationError",
    "SyncLoadInterceptor",
    "add_load_service",
    "record_request_cost",
    "register",
]
