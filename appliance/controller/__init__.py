"""The other end: pushes watchlists, takes alerts, acknowledges them."""
