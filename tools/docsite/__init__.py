"""What builds the documentation in docs/ and runs the code in it."""
