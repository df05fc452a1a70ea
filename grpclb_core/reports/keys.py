"""Where reports travel: two trailer keys that hold the same bytes, and a service."""

from __future__ import annotations

STANDARD_KEY = "endpoint-load-metrics-bin"
"""The trailer of gRFC A51. C-core takes it, for its own `weighted_round_robin`, so that Python never sees it."""
OWN_KEY = "grpclb-load-bin"
"""The same bytes once more, under a name that C-core passes on."""

SERVICE = "xds.service.orca.v3.OpenRcaService"
METHOD = "StreamCoreMetrics"
STREAM = f"/{SERVICE}/{METHOD}"
"""The out-of-band stream of gRFC A51."""
