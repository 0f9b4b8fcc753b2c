"""The server's log: one JSON object a line, on standard error."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from smx.runtime.serving.rest import to_json


def log(event: str, **fields: Any) -> None:
    """Write an event with its time; fields that are None are left out."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    known = {key: value for key, value in fields.items() if value is not None}
    sys.stderr.buffer.write(to_json({"time": time, "event": event, **known}) + b"\n")
    sys.stderr.flush()
