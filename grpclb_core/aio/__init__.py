"""How does grpc.aio see us? As a channel, or as four interceptors for a channel that is already there.

Entry points: `insecure_channel` and `secure_channel`, or `Balancer.interceptors()`. Read `channel.py` first: a call
whose endpoint is ready runs in compiled code and comes back as grpc.aio's own call object; every other call goes
through `waiting.py`. This room knows no balancing; it asks the balancer's current picker.
"""

from .balancer import Balancer
from .channel import Channel, insecure_channel, secure_channel
from .codecs import Codec

__all__ = ["Balancer", "Channel", "Codec", "insecure_channel", "secure_channel"]
