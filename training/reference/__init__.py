"""The published protocol: probes, rankings of layers, attention entropies."""
