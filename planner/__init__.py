"""poolpipe's planner: profiles of DNNs on unlike devices in, provably good pool-based pipeline plans out."""
