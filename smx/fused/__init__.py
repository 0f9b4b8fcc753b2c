"""Fast paths of the two layers; `smx.functional` chooses them where a pool allows, and holds the plain formulas."""
