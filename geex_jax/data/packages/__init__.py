"""Named Debian and npm packages: looked up, pinned in a lock file, fetched into a cache."""
