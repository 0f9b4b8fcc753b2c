"""Latency: how long does a run take, beside others, and how sure is that?"""
