"""Scripts: run them through the Makefile, which sets their path."""
