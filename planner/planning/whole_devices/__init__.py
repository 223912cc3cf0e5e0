"""Exact and large: methods that know that devices are whole."""
