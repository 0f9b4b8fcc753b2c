"""What other engines need to serve an exported file: Triton's model repository, and KServe's manifest."""
