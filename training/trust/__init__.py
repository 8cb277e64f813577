"""How far to believe a judge: calibrated scores, when it does not know, and figures with honest intervals."""
