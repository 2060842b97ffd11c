"""An index of many tasks on disk: built once, opened in seconds, rows read when they are drawn."""
