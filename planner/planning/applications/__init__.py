"""Applications: chains of tasks with variants, accuracy against cost."""
