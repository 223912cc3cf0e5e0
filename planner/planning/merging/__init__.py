"""Merging: DNNs that share layers, deployed together."""
