"""Finding the number of threads and the layout that are fastest for a model."""
