"""What meta-training leaves, what it adapts to, and the files of both."""
