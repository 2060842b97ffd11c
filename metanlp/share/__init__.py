"""What others get: a published model, its card, exports."""
