"""Where cells run: the seam (`backend`), and a class for each kind of place."""
