"""One process: signals, exit codes, standard streams, network, checks before a start."""
