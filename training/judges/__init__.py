"""Making a judge's folder: heads ported or fitted, config, evidence, plots."""
