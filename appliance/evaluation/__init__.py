"""Accuracy, speed and the demo, measured from outside the node."""
