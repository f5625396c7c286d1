"""The training loop, the stages of a method, and what one step does."""
