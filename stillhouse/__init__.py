"""The ground floor: what every room may use. Standard library only."""
