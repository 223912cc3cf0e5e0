"""The compiled engine, one idea a module: state, calendar, servers, rules, failures, the loop."""
