"""What one run goes through: arguments, checks, stages, results."""
