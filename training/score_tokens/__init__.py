"""LAGER: readings that end before a score, logits of every layer, weights of layers."""
