"""Training losses. Each samples and masks its own negatives."""
