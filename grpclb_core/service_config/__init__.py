"""What may a service's owner say of its balancing? gRPC's service config, in JSON, in and out.

Entry points: `parse_service_config` and `service_config_json`; `ServiceConfigs` decides which of several counts. Read
`parse.py` first. Policies are found in `POLICIES` by their names, and their options by the names of their fields
(`proto_json.py`), so that a policy needs no line here.
"""

from .choice import OUTLIER_DETECTION
from .in_force import ServiceConfigs
from .parse import KNOWN, ServiceConfig, parse_service_config, service_config_json

__all__ = [
    "KNOWN",
    "OUTLIER_DETECTION",
    "ServiceConfig",
    "ServiceConfigs",
    "parse_service_config",
    "service_config_json",
]
