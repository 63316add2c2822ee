"""Programs for whoever works on this repository: the check of a release, the hooks of the site."""
