"""Chat answers on the wire: watched as they pass, put together, told again as a stream."""

from gateway.completion.assembly import Assembly
from gateway.completion.replay import replay
from gateway.completion.watch import Figures, Kind, Usage, Watch, look

__all__ = ["Assembly", "Figures", "Kind", "Usage", "Watch", "look", "replay"]
