"""How fast the project is, and its peers on the same nets: see README.md beside this file. Not installed."""
