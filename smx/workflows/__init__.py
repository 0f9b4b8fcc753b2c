"""What each command does, as one library call that returns a report."""
