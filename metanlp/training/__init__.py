"""The outer loop, and what it needs: optimizer, processes, checkpoints, logs."""
