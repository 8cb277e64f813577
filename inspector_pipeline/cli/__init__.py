"""The `inspector` command; its import name is `inspector_cli`, so that it starts without the package that it calls."""
