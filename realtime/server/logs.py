"""Logs: one JSON object a line.

Owns the format and the level. Must never log a token: there is no access log. Assumes one call a process, before the
first line.
"""

from __future__ import annotations

import logging
import logging.config


def configure_logging(level: str) -> None:
    """One JSON object a line, on standard error."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "fmt": "%(levelname)s %(name)s %(message)s",
                    "rename_fields": {"levelname": "level", "name": "logger"},
                    "timestamp": "at",
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": level.upper()},
            "loggers": {"uvicorn.error": {"level": "WARNING"}, "asyncio": {"level": "WARNING"}},
        }
    )
