"""Fast paths of the two layers; README.md here explains them."""
