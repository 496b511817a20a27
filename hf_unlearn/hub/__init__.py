"""To the Hub: what may leave this machine, and how."""
