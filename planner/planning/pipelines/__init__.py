"""What can be chosen: candidates, their sizes and prices, and why nothing can."""
