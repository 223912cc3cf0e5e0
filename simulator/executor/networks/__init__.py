"""Networks on real devices: the event engine on a real clock, for all rules that it knows."""
