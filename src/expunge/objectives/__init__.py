"""What a gradient method minimises, one family a file."""
