"""What figures show, as tidy data frames computed from records; `grbench.plots` draws them for papers."""
