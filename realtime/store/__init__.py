"""Dragonfly (or any Redis-compatible store): keys, scripts, connections, consistent readings."""
