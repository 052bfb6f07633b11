"""Example jobs and the user code they need."""
