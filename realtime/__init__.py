"""Live leaderboards, pushed: scores in over WebSocket or HTTP, the same diff out to every viewer."""

__version__ = "0.1.0"
