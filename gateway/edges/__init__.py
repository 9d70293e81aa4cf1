"""Edges turn a protocol into a call and an outcome into the protocol's answer; each has its own answer table."""
