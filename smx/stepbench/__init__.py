"""What does a training step cost? Time and memory of both phases beside plain networks and the plain formulas."""
