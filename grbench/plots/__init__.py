"""Figures for papers, drawn by matplotlib from the frames of `grbench.figures`; one file a kind."""
