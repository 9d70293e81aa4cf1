"""The shipped hospitals: one folder each; see README.md."""
