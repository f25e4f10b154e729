"""Node and controller: the questions, the answers, and NNG under them."""
