"""What is made of an optimum: canonical plans, changes of the plan in use, explanations."""
