"""Finding the fastest settings for a file."""
