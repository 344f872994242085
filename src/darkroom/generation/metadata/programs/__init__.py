"""What other programs than A1111 write into their pictures, a file for each."""
