"""What a phase of a cell costs: seconds, memory, energy, operations, and the machine that it ran on."""
