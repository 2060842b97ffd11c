"""Support and query sets: rows as tokens, drawn by number, packed into passes."""
