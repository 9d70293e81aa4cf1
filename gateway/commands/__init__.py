"""One module for each command of `huren`: reads arguments, calls the part that does the work, prints for people."""
