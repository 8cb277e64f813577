"""Reading and writing files of rows, one reader a format."""
