"""Where the time of a run goes, by layer and operator."""
