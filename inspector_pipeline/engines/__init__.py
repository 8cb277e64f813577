"""The judge inside engines for big data: Ray Data and datatrove."""
