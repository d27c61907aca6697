"""What is kept for how long, and the work that ends it."""
