"""What figures show, as tidy data frames computed from records; `grbench.report.plots` draws them for papers."""
