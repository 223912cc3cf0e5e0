"""Dispatch: which batch goes where, and when."""
