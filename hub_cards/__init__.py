"""Cards for the Hub: templates, and the data classes that fill them. Every number comes from a results.json."""
