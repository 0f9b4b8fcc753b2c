"""A server for exported files that speaks the Open Inference Protocol (OIP), version 2, over REST and gRPC."""
