"""Parity: does a file give the right answers, and where does it first not?"""
