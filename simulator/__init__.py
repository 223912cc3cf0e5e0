"""poolpipe's simulator and executor: plans and arrivals in, records of every request out."""
