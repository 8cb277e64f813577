"""Big jobs: score and filter files and datasets of any size, here or on Ray and datatrove."""
