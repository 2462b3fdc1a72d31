"""The assembly floor: command line, processes, admin port, demo."""
