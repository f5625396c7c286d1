"""The user-item graph of the training events, and sampled neighbourhoods in it."""
