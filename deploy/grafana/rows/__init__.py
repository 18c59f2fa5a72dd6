"""The rows of the board, from what it is for down to the process."""
