"""Training through both phases: settings, one loop, checkpoints."""
