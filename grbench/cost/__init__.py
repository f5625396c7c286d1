"""Measuring the cost of a cell's phases: seconds, memory, energy, FLOPs, and the machine that it ran on."""
