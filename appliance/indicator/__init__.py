"""State to blink pattern (a table), and the lamps."""
