"""The linear models of a plan: objectives, relaxation, the mixed-integer programme, and the solvers."""
