"""What `bench peer-step` asks of nanodo, over our own model: for tests of the bench alone."""
