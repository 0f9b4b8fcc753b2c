"""Many runs that are compared: a grid of cells, what trains them, and the table of their results."""
