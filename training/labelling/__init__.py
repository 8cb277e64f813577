"""Responses and labels by other models: endpoints, rubrics, journals."""
