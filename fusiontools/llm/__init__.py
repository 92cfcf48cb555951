"""Ask a model once: journalled, retried, priced, within its limits."""
