"""Figures for papers, drawn by matplotlib from the frames of `grbench.report.figures`; one file a kind."""
