"""What the machine and this installation can do: `grbench doctor`."""
