"""From files, frames and lists to checked rows, each error with its file and line."""
