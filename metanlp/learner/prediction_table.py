"""What an adapted model says of rows, as a table in a file or on standard output."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any


def as_table(records: Sequence[Mapping[str, Any]], kind: str) -> str:
    """Each record as a row of JSONL or CSV, where lists stand in JSON; a column that one has is there for all."""
    if kind == "jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(chain.from_iterable(records))), lineterminator="\n")
    writer.writeheader()
    for record in records:
        flat = (json.dumps(v, ensure_ascii=False) if isinstance(v, list | tuple | dict) else v for v in record.values())
        writer.writerow(dict(zip(record, flat, strict=True)))
    return stream.getvalue()


def rounded(value: Any) -> Any:
    """Numbers to four places, however deep they lie."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return {key: rounded(part) for key, part in value.items()} if isinstance(value, dict) else value
