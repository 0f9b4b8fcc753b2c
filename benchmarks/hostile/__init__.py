"""What clients can do to a server that speaks HTTP, JSON, the Open Inference Protocol and gRPC; by kind.

Each kind is a function of a random generator that returns one `Case`.
"""
